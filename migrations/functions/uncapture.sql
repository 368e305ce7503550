-- Publishes no more changes of a table: takes our triggers from it, with the rights of who calls it (its owner), in the caller's
-- transaction. What was published stays. False: it was not captured.
CREATE FUNCTION outbox.uncapture("table" regclass) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    statements text[] := ARRAY(SELECT outbox.capture_statements("table", '{}'));
BEGIN
    PERFORM outbox.change_triggers("table", statements);
    RETURN outbox.forget_capture("table") OR statements <> '{}';
END $$;
