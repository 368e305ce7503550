-- Pauses a schedule, until resume_schedule; declaring it anew does not end that. False: there is none, or it is paused already.
CREATE FUNCTION outbox.pause_schedule(name text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    schedule_id int;
BEGIN
    UPDATE outbox.schedule s SET paused_at = clock_timestamp()
    WHERE s.name = pause_schedule.name AND s.paused_at IS NULL
    RETURNING s.id INTO schedule_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM outbox.move_schedule(schedule_id, 'infinity');
    RETURN true;
END $$;
