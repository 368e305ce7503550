-- The log for people: a row a message that is kept, whether or not it was delivered, but for those that were cancelled. By
-- (partition_id, "offset"); a query by topic, time or key reads all that is kept.
CREATE VIEW outbox.history AS
SELECT t.name AS topic, p.number AS partition, p.priority, m."offset", format('%s-%s', m.partition_id, m."offset") AS id,
       m.published_at, m.key, m.headers, m.payload, m.body, m.expires_at, m.partition_id
FROM outbox.message m
JOIN outbox.partition p ON p.id = m.partition_id
JOIN outbox.topic t ON t.id = p.topic_id
WHERE m.expires_at IS DISTINCT FROM '-infinity' AND p.backfill_for IS NULL;

COMMENT ON COLUMN outbox.history.id IS 'The message''s stable id, as workers and the command line show it.';

COMMENT ON COLUMN outbox.history.payload IS 'JSON text as it was published; NULL: the message is raw bytes, in body.';
