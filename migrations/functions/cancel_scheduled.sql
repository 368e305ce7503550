-- Deletes a message that was to come, in the caller's transaction. False: there is none, it was published already; waits for a
-- transaction that is just publishing it.
CREATE FUNCTION outbox.cancel_scheduled(id bigint) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM outbox.scheduled s WHERE s.id = cancel_scheduled.id;
    RETURN FOUND;
END $$;
