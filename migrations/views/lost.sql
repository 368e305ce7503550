-- What subscriptions lost since their backlog expires, and nobody has taken note of: see acknowledge_losses.
CREATE VIEW outbox.lost AS
SELECT l.id, s.name AS subscription, t.name AS topic, p.number AS partition, p.priority, p.id AS partition_id,
       l.first_offset, l.last_offset, l.messages, l.lost_at
FROM outbox.loss l
JOIN outbox.subscription s ON s.id = l.subscription_id
JOIN outbox.partition p ON p.id = l.partition_id
JOIN outbox.topic t ON t.id = p.topic_id
WHERE l.acknowledged_at IS NULL;
