-- The partitions that a subscription's bindings take in, and on which it has no cursor. Internal: see adopt.
CREATE FUNCTION outbox.without_cursor(subscription_id int) RETURNS SETOF int
LANGUAGE sql STABLE
AS $$
SELECT p.id
FROM outbox.topic t
JOIN outbox.partition p ON p.topic_id = t.id
WHERE coalesce(p.backfill_for = without_cursor.subscription_id, true)
  AND NOT EXISTS (SELECT FROM outbox.cursor c
                  WHERE c.subscription_id = without_cursor.subscription_id AND c.partition_id = p.id)
  AND EXISTS (SELECT FROM outbox.binding b
              WHERE b.subscription_id = without_cursor.subscription_id AND outbox.topic_matches(t.name, b.pattern))
$$;
