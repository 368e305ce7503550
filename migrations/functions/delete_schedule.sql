-- Deletes a schedule, and the ticks of it that could not be published so far. False: there is none. A worker whose application
-- declares it creates it anew when it starts.
CREATE FUNCTION outbox.delete_schedule(name text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted int;
BEGIN
    DELETE FROM outbox.schedule s WHERE s.name = delete_schedule.name RETURNING s.id INTO deleted;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM outbox.tick t WHERE t.schedule_id = deleted;
    DELETE FROM outbox.scheduled s WHERE s.schedule = delete_schedule.name;
    RETURN true;
END $$;
