-- Writes down what is captured, and declares the topic; forgets tables that are gone. Internal: see capture.
CREATE FUNCTION outbox.note_capture("table" regclass, topic text, operations text[], columns text[], key text[]) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM outbox.route(note_capture.topic, 0);
    DELETE FROM outbox.capture c WHERE NOT EXISTS (SELECT FROM pg_class t WHERE t.oid = c."table");
    INSERT INTO outbox.capture AS c ("table", topic, operations, columns, key)
    VALUES (note_capture."table", note_capture.topic, note_capture.operations, note_capture.columns, note_capture.key)
    ON CONFLICT ("table") DO UPDATE
    SET (topic, operations, columns, key) = ROW (excluded.topic, excluded.operations, excluded.columns, excluded.key);
END $$;
