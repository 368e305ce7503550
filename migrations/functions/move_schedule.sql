-- Sets when a schedule ticks next; the caller has locked its row. It walks the dead rows of that schedule's ticks, so it is for
-- changes by hand and by declaration, not for each tick. Internal: see declare_schedule, pause_schedule, resume_schedule.
CREATE FUNCTION outbox.move_schedule(schedule_id int, next_at timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    before timestamptz;
BEGIN
    DELETE FROM outbox.tick t WHERE t.schedule_id = move_schedule.schedule_id RETURNING t.last_at INTO before;
    INSERT INTO outbox.tick (schedule_id, next_at, last_at) VALUES (move_schedule.schedule_id, move_schedule.next_at, before);
    PERFORM outbox.wake(-1);
END $$;
