-- Tells sleeping workers that a topic has something new, when this transaction commits. NOTIFY serialises the commits of
-- the whole database, so it is sent only if the topic's wake lock shows that somebody sleeps.
-- SET outbox.notify = off keeps it out of a transaction (one that will be PREPAREd can't hold a NOTIFY).
CREATE FUNCTION outbox.wake(topic_id int) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT outbox.nobody_sleeps(topic_id) AND current_setting('outbox.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('outbox', topic_id::text);
    END IF;
END $$;
