-- Writes down what follows from the bindings and settings of subscriptions, where pull and publish see it without a look at them:
-- who has conditions, and whose full backlog rejects a publish. Internal: see bind, unbind, configure, declare_topic.
CREATE FUNCTION outbox.note_bindings() RETURNS void
LANGUAGE sql
AS $$
UPDATE outbox.subscription s SET is_filtered = f.is_filtered
FROM (SELECT s.id, EXISTS (SELECT FROM outbox.binding b WHERE b.subscription_id = s.id
                           AND (b.headers IS NOT NULL OR b.filter IS NOT NULL OR b.alternate)) AS is_filtered
      FROM outbox.subscription s) AS f
WHERE s.id = f.id AND s.is_filtered <> f.is_filtered;

UPDATE outbox.topic t SET guards = g.guards
FROM (SELECT t.id, (SELECT array_agg(s.id ORDER BY s.id) FROM outbox.subscription s
                    WHERE s.overflow = 'reject-publish' AND s.max_backlog IS NOT NULL
                      AND EXISTS (SELECT FROM outbox.binding b
                                  WHERE b.subscription_id = s.id AND outbox.topic_matches(t.name, b.pattern))) AS guards
      FROM outbox.topic t) AS g
WHERE t.id = g.id AND t.guards IS DISTINCT FROM g.guards;
$$;
