-- Keeps a worker alive for "timeout" from now. False: it was found dead and its leases are in other hands; what it still
-- works on can't be settled, and it must register anew.
CREATE FUNCTION outbox.heartbeat(worker bigint, timeout interval DEFAULT '30 seconds') RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE outbox.worker w SET alive_until = clock_timestamp() + timeout
    WHERE w.id = heartbeat.worker AND w.retired_at IS NULL;
    RETURN FOUND;
END $$;
