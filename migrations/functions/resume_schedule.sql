-- Lets a paused schedule tick again, first at next_at (NULL: an "every" after one interval). Ticks while it was paused do not
-- count as missed. False: there is none, or it is not paused.
CREATE FUNCTION outbox.resume_schedule(name text, next_at timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    schedule outbox.schedule;
BEGIN
    UPDATE outbox.schedule s SET paused_at = NULL
    WHERE s.name = resume_schedule.name AND s.paused_at IS NOT NULL
    RETURNING s.* INTO schedule;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF resume_schedule.next_at IS NULL AND schedule.every IS NULL THEN
        RAISE EXCEPTION 'schedule "%" needs its next tick: next_at', resume_schedule.name
            USING ERRCODE = 'OB007', HINT = '`outbox schedules resume` computes it.';
    END IF;
    PERFORM outbox.move_schedule(schedule.id, coalesce(resume_schedule.next_at, clock_timestamp() + schedule.every));
    RETURN true;
END $$;
