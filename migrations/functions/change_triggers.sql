-- Runs statements that change triggers of a table, with the rights of who calls it: TRIGGER on the table to create one, its
-- owner's to drop one. Waits 2 s for the lock (SHARE ROW EXCLUSIVE, or ACCESS EXCLUSIVE to drop), then says who is in the way
-- (OB007). Internal: see capture.
CREATE FUNCTION outbox.change_triggers("table" regclass, statements text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    statement text;
BEGIN
    FOREACH statement IN ARRAY statements LOOP
        EXECUTE statement;
    END LOOP;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'the triggers of % can''t be changed while others use it: %', "table", coalesce(
        (SELECT string_agg(format('pid %s (%s) since %s', h.pid, a.usename, a.xact_start::timestamptz(0)), ', ' ORDER BY h.pid)
         FROM (SELECT DISTINCT l.pid FROM pg_locks l
               WHERE l.relation = "table" AND l.granted AND l.pid <> pg_backend_pid()
                 AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) AS h
         LEFT JOIN pg_stat_activity a ON a.pid = h.pid), 'a transaction that has just ended')
        USING ERRCODE = 'OB007', HINT = 'Nothing was changed. Try again when their transactions have ended.';
END $$;
