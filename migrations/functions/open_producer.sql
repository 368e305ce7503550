-- Notes that a living worker produces under a transactional id. False: it was found dead, and must not begin. Locks the worker's row, so
-- that whoever finds it dead after this sees the id.
CREATE FUNCTION outbox.open_producer(id text, relay text, worker bigint) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM outbox.worker w WHERE w.id = open_producer.worker AND w.retired_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO outbox.producer (id, relay, worker_id) VALUES (open_producer.id, open_producer.relay, open_producer.worker)
    ON CONFLICT DO NOTHING;
    RETURN true;
END $$;
