-- How far each cursor is behind the end of its partition, in offsets: an upper bound of the messages that are visible,
-- since transactions that rolled back leave holes until the cursor has passed them.
CREATE VIEW outbox.lag AS
SELECT s.name AS subscription, t.name AS topic, p.number AS partition, p.priority, p.id AS partition_id,
       p.generation, log.ended AS last_offset, at."offset" AS "offset", greatest(log.ended - at."offset", 0) AS lag,
       cardinality(at.open) AS open_transactions
FROM outbox.cursor c
JOIN outbox.subscription s ON s.id = c.subscription_id
JOIN outbox.partition p ON p.id = c.partition_id
JOIN outbox.topic t ON t.id = p.topic_id
CROSS JOIN LATERAL (
    SELECT q."offset", q.open FROM outbox.position q
    WHERE q.subscription_id = c.subscription_id AND q.partition_id = c.partition_id
    ORDER BY q."offset" DESC LIMIT 1
) AS at
CROSS JOIN LATERAL (SELECT outbox.log_end(p.sequence) AS ended OFFSET 0) AS log;
