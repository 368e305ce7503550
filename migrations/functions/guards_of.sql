-- The subscriptions that read a topic and whose full backlog rejects a publish to it; NULL if there are none. Internal.
CREATE FUNCTION outbox.guards_of(topic text) RETURNS int[]
LANGUAGE sql STABLE
AS $$
SELECT array_agg(s.id ORDER BY s.id) FROM outbox.subscription s
WHERE s.overflow = 'reject-publish' AND s.max_backlog IS NOT NULL
  AND EXISTS (SELECT FROM outbox.binding b
              WHERE b.subscription_id = s.id AND outbox.topic_matches(guards_of.topic, b.pattern))
$$;
