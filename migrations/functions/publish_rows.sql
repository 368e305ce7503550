-- Publishes changes of rows of a table, in the order of the arrays. Internal: see publish_changes.
CREATE FUNCTION outbox.publish_rows(name text, topic text, operations text[], keys text[], befores json[], afters json[])
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    payloads json[];
    headers jsonb[];
BEGIN
    IF cardinality(operations) = 1 THEN
        PERFORM outbox.publish(
            publish_rows.topic,
            json_build_object('operation', operations[1], 'table', name, 'before', befores[1], 'after', afters[1]),
            keys[1], jsonb_build_object('operation', operations[1], 'table', name));
    ELSIF operations <> '{}' THEN
        SELECT array_agg(json_build_object('operation', u.operation, 'table', name, 'before', u.before, 'after', u.after)
                         ORDER BY u.nth),
               array_agg(jsonb_build_object('operation', u.operation, 'table', name) ORDER BY u.nth)
        INTO payloads, headers
        FROM unnest(operations, befores, afters) WITH ORDINALITY AS u (operation, before, after, nth);
        PERFORM outbox.publish_many(publish_rows.topic, payloads, keys, headers);
    END IF;
END $$;
