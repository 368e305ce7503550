-- Is no worker asleep that waits for a topic's messages? Then nobody needs to be told of them. In one expression: a cancelled
-- statement must not leave the lock behind.
CREATE FUNCTION outbox.nobody_sleeps(topic_id int) RETURNS boolean
LANGUAGE sql VOLATILE
RETURN CASE WHEN pg_try_advisory_lock(outbox.wake_lock(topic_id)) THEN pg_advisory_unlock(outbox.wake_lock(topic_id)) ELSE false END;
