-- Writes down what follows from the bindings and settings of subscriptions, where pull and publish see it without a look at them:
-- who has conditions, and whose full backlog rejects a publish. Those who change something do so one at a time, or they would not see
-- each other's. A publisher that declares a topic does not come here. Internal: see bind, unbind, configure, adopt.
CREATE FUNCTION outbox.note_bindings() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM outbox.subscription s WHERE s.is_filtered <> outbox.has_conditions(s.id))
       AND NOT EXISTS (SELECT FROM outbox.topic t WHERE t.guards IS DISTINCT FROM outbox.guards_of(t.name)) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(8031453476610899968 + 67);
    UPDATE outbox.subscription s SET is_filtered = NOT s.is_filtered WHERE s.is_filtered <> outbox.has_conditions(s.id);
    UPDATE outbox.topic t SET guards = outbox.guards_of(t.name) WHERE t.guards IS DISTINCT FROM outbox.guards_of(t.name);
END $$;
