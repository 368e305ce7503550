-- Deletes counters that have expired; returns how many. Reads all of them: they are few.
CREATE FUNCTION outbox.expire_counters() RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    expired bigint;
BEGIN
    DELETE FROM outbox.counter c WHERE c.expires_at <= clock_timestamp();
    GET DIAGNOSTICS expired = ROW_COUNT;
    RETURN expired;
END $$;
