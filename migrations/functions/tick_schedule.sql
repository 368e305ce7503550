-- Publishes ticks of a schedule, each with headers "schedule" and "scheduled-for", and moves it on to next_at, in one
-- transaction. Returns how many messages; NULL: nothing was done, since another is at it, or did it, or the schedule was changed
-- or paused: it must stand at due_at still, in that revision. What can't be published waits in outbox.scheduled.
CREATE FUNCTION outbox.tick_schedule(
    name text, revision int, due_at timestamptz, ticks timestamptz[], next_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
    schedule outbox.schedule;
    before timestamptz;
BEGIN
    SELECT s.* INTO schedule FROM outbox.schedule s
    WHERE s.name = tick_schedule.name AND s.revision = tick_schedule.revision AND s.paused_at IS NULL
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM outbox.tick t WHERE t.schedule_id = schedule.id AND t.next_at = tick_schedule.due_at
    RETURNING t.last_at INTO before;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO outbox.tick (schedule_id, next_at, last_at)
    VALUES (schedule.id, tick_schedule.next_at, coalesce(ticks[cardinality(ticks)], before));
    IF schedule.error IS NOT NULL THEN
        UPDATE outbox.schedule s SET error = NULL WHERE s.id = schedule.id;
    END IF;
    RETURN outbox.publish_ticks(schedule, ticks);
END $$;
