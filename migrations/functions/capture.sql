-- Publishes the changes of a table from now on, by triggers, in the transactions that make them; again: changes how. Returns the
-- topic. Runs with the rights of who calls it (TRIGGER on the table), in the caller's transaction. columns NULL: all; key NULL:
-- the primary key, {}: none; topic NULL: changes.<schema>.<table>.
CREATE FUNCTION outbox.capture(
    "table" regclass, operations text[] DEFAULT '{insert,update,delete,truncate}', columns text[] DEFAULT NULL,
    topic text DEFAULT NULL, key text[] DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statements text[];
BEGIN
    IF operations = '{}' THEN
        RAISE EXCEPTION '% can''t be captured: no operations are named', "table" USING ERRCODE = 'OB007';
    END IF;
    statements := ARRAY(SELECT outbox.capture_statements("table", operations, columns, topic, key));
    topic := coalesce(topic, outbox.topic_of_changes("table"));
    PERFORM outbox.note_capture("table", topic, operations, columns, key);
    PERFORM outbox.change_triggers("table", statements);
    RETURN topic;
END $$;
