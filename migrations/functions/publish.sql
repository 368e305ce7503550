-- Appends one message to a topic in the caller's transaction, at any isolation level; one INSERT. Returns where it lies:
-- its stable id is 'partition_id-offset'. The order of the statements matters: xid, then offset, then row.
-- priority: 0 to 9, the higher first. body: raw bytes instead of a JSON payload.
CREATE FUNCTION outbox.publish(
    topic text, payload json, key text DEFAULT NULL, headers jsonb DEFAULT NULL, priority int DEFAULT 0,
    body bytea DEFAULT NULL, OUT partition_id int, OUT "offset" bigint
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    route record;
    place int;
BEGIN
    SELECT * INTO route FROM outbox.route(publish.topic, publish.priority);
    place := 1 + outbox.partition_number(publish.key, cardinality(route.partition_ids));
    PERFORM pg_current_xact_id();
    partition_id := route.partition_ids[place];
    "offset" := nextval(route.sequences[place]);
    INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, key, headers, payload, body)
    VALUES (route.slot, publish.partition_id, publish."offset", pg_current_xact_id(), clock_timestamp(),
            publish.key, publish.headers, publish.payload, publish.body);
    PERFORM outbox.wake(route.topic_id);
END $$;
