-- Tells sleeping workers that a topic has something new, when this transaction commits. NOTIFY serialises the commits of
-- the whole database, so it is sent only if the topic's wake lock shows that somebody sleeps.
-- SET outbox.notify = off keeps it out of a transaction (one that will be PREPAREd can't hold a NOTIFY).
CREATE FUNCTION outbox.wake(topic_id int) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF pg_try_advisory_lock(outbox.wake_lock(topic_id)) THEN
        PERFORM pg_advisory_unlock(outbox.wake_lock(topic_id));
    ELSIF current_setting('outbox.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('outbox', topic_id::text);
    END IF;
END $$;
