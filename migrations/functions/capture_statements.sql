-- The statements that put the triggers of a capture on a table, and take away those of operations that are not wanted (any more):
-- what outbox.capture() would run, and `outbox capture --dry-run` prints. A table, column, key or topic that can't be is OB007.
CREATE FUNCTION outbox.capture_statements(
    "table" regclass, operations text[] DEFAULT '{insert,update,delete,truncate}', columns text[] DEFAULT NULL,
    topic text DEFAULT NULL, key text[] DEFAULT NULL
) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    problem text := outbox.capture_problem("table", operations, columns, topic, key);
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '% can''t be captured: %', "table", problem USING ERRCODE = 'OB007';
    END IF;
    RETURN QUERY
    SELECT CASE WHEN event.operation = ANY (operations)
           THEN format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION %s(%L, %L, %L)',
                       'outbox_capture_' || event.operation, upper(event.operation), "table", event.transition,
                       'outbox.publish_changes', coalesce(topic, outbox.topic_of_changes("table")),
                       coalesce(columns::text, ''), coalesce(key::text, ''))
           ELSE format('DROP TRIGGER %I ON %s', 'outbox_capture_' || event.operation, "table") END
    FROM (VALUES (1, 'insert', 'REFERENCING NEW TABLE AS outbox_new'),
                 (2, 'update', 'REFERENCING OLD TABLE AS outbox_old NEW TABLE AS outbox_new'),
                 (3, 'delete', 'REFERENCING OLD TABLE AS outbox_old'),
                 (4, 'truncate', '')) AS event (nth, operation, transition)
    WHERE event.operation = ANY (operations)
       OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = "table" AND t.tgname = 'outbox_capture_' || event.operation)
    ORDER BY event.nth;
END $$;
