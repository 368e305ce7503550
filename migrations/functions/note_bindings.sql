-- Writes down what follows from the bindings and settings of subscriptions, where pull and publish see it without a look at them:
-- who has conditions, and whose full backlog rejects a publish. One at a time, or two would not see each other's. A publisher that
-- declares a topic does not come here. Internal: see bind, unbind, configure, adopt.
CREATE FUNCTION outbox.note_bindings() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(8031453476610899968 + 67);
    UPDATE outbox.subscription s SET is_filtered = f.is_filtered
    FROM (SELECT s.id, EXISTS (SELECT FROM outbox.binding b WHERE b.subscription_id = s.id
                               AND (b.headers IS NOT NULL OR b.filter IS NOT NULL OR b.alternate)) AS is_filtered
          FROM outbox.subscription s) AS f
    WHERE s.id = f.id AND s.is_filtered <> f.is_filtered;

    UPDATE outbox.topic t SET guards = g.guards
    FROM (SELECT t.id, outbox.guards_of(t.name) AS guards FROM outbox.topic t OFFSET 0) AS g
    WHERE t.id = g.id AND t.guards IS DISTINCT FROM g.guards;
END $$;
