-- Publishes a message of a schedule now, beside its ticks, even if it is paused. Returns how many were published: 1, or 0 if that
-- failed and waits in outbox.scheduled; NULL: there is no such schedule.
CREATE FUNCTION outbox.run_schedule(name text) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    schedule outbox.schedule;
BEGIN
    SELECT s.* INTO schedule FROM outbox.schedule s WHERE s.name = run_schedule.name;
    RETURN CASE WHEN FOUND THEN outbox.publish_ticks(schedule, ARRAY[date_trunc('second', clock_timestamp())]) END;
END $$;
