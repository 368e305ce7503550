-- The partitions on which a subscription has a cursor, and whose topics match a pattern. Internal: see unbind.
CREATE FUNCTION outbox.partitions_of(reader int, pattern text) RETURNS SETOF int
LANGUAGE sql STABLE
AS $$
SELECT c.partition_id
FROM outbox.cursor c
JOIN outbox.partition p ON p.id = c.partition_id
JOIN outbox.topic t ON t.id = p.topic_id
WHERE c.subscription_id = partitions_of.reader AND outbox.topic_matches(t.name, partitions_of.pattern)
$$;
