-- Drops all that dramatiq's queue holds: what waits, for its turn, for another try or for its time, and its dead letters; what is in hand
-- goes on. Returns how many. The whole of its own READ COMMITTED transaction, as purge is.
CREATE FUNCTION outbox.flush_queue(subscription text) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    purged bigint := outbox.purge(flush_queue.subscription);
    later bigint;
    dead bigint;
BEGIN
    DELETE FROM outbox.scheduled s WHERE s.topic = flush_queue.subscription;
    GET DIAGNOSTICS later = ROW_COUNT;
    DELETE FROM outbox.dead_letter d WHERE d.subscription_id = outbox.subscription_id(flush_queue.subscription);
    GET DIAGNOSTICS dead = ROW_COUNT;
    RETURN purged + later + dead;
END $$;
