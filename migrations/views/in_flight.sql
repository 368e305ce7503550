-- What is in workers' hands: a row a lease.
CREATE VIEW outbox.in_flight AS
SELECT l.id AS lease_id, s.name AS subscription, t.name AS topic, p.number AS partition, p.priority, p.id AS partition_id,
       l.worker_id, w.name AS worker, l.attempt, l.offsets, l.leased_at,
       (SELECT sum(upper(r) - lower(r)) FROM unnest(l.offsets) AS r)::bigint AS messages
FROM outbox.lease l
JOIN outbox.subscription s ON s.id = l.subscription_id
JOIN outbox.partition p ON p.id = l.partition_id
JOIN outbox.topic t ON t.id = p.topic_id
LEFT JOIN outbox.worker w ON w.id = l.worker_id;
