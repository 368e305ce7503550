-- Is this the worker that an exclusive subscription hands its messages to? If that one has ended or died, it becomes this one: then
-- the transaction has an xid, and the next pull is the first that may take something (NULL). Internal: see pull_batches.
CREATE FUNCTION outbox.owns(reader int, worker bigint) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    current_owner bigint;
BEGIN
    SELECT o.worker_id INTO current_owner FROM outbox.owner o WHERE o.subscription_id = reader;
    IF current_owner = worker THEN
        RETURN true;
    ELSIF EXISTS (SELECT FROM outbox.worker w
                  WHERE w.id = current_owner AND w.retired_at IS NULL AND w.alive_until > clock_timestamp()) THEN
        RETURN false;
    END IF;
    INSERT INTO outbox.owner AS o (subscription_id, worker_id) VALUES (reader, worker)
    ON CONFLICT (subscription_id) DO UPDATE SET worker_id = excluded.worker_id, since = excluded.since
    WHERE o.worker_id = current_owner;
    RETURN NULL;
END $$;
