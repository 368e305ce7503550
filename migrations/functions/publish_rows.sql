-- Publishes changes of rows of a table, in the order of the arrays. Internal: see publish_changes.
CREATE FUNCTION outbox.publish_rows(changed oid, topic text, operations text[], keys text[], befores json[], afters json[])
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    name text;
    payloads json[];
    headers jsonb[];
BEGIN
    IF operations = '{}' THEN
        RETURN;
    END IF;
    SELECT n.nspname || '.' || c.relname INTO name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = changed;
    SELECT array_agg(json_build_object('operation', u.operation, 'table', name, 'before', u.before, 'after', u.after) ORDER BY u.nth),
           array_agg(jsonb_build_object('operation', u.operation, 'table', name) ORDER BY u.nth)
    INTO payloads, headers
    FROM unnest(operations, befores, afters) WITH ORDINALITY AS u (operation, before, after, nth);
    PERFORM outbox.publish_many(publish_rows.topic, payloads, keys, headers);
END $$;
