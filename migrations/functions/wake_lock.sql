-- The 64-bit advisory lock on which the workers sleep that read a topic: shared by them, tried by publishers.
-- Topics share 64 of them, so that a worker over a thousand topics holds no thousand locks. The namespace is
-- 'outbox' in ASCII, far from the small numbers that applications use. -1 is no topic: who waits for what is due sleeps on it.
CREATE FUNCTION outbox.wake_lock(topic_id int) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 8031453476610899968 + topic_id % 64;
