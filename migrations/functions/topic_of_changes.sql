-- The topic of a table's changes if none is named: changes.<schema>.<table>. NULL: its names can't be words of a topic.
CREATE FUNCTION outbox.topic_of_changes("table" regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT format('changes.%s.%s', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = "table" AND n.nspname || c.relname ~ '^[A-Za-z0-9_-]+$'
$$;
