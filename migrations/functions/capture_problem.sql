-- Why a table can't be captured so; NULL: it can. operations {}: no more, which anything can. Internal: see capture_statements.
CREATE FUNCTION outbox.capture_problem("table" regclass, operations text[], columns text[], topic text, key text[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT CASE
    WHEN operations = '{}' THEN NULL
    WHEN c.oid IS NULL THEN 'there is no such table'
    WHEN c.relkind IN ('v', 'm') THEN 'it is a view; capture the tables that it reads'
    WHEN c.relkind NOT IN ('r', 'p') THEN 'it is no table of this database'
    WHEN c.relpersistence = 't' THEN 'it is a temporary table'
    WHEN n.nspname IN ('outbox', 'pg_catalog', 'information_schema') THEN format('it belongs to %s', n.nspname)
    WHEN (operations <@ '{insert,update,delete,truncate}') IS NOT TRUE
    THEN format('operations are of insert, update, delete and truncate, not %s', operations)
    WHEN columns = '{}' THEN 'no columns are named'
    WHEN array_position(columns || key, NULL) IS NOT NULL THEN 'a column''s name is NULL'
    WHEN cardinality(key) > (SELECT count(DISTINCT k) FROM unnest(key) AS k) THEN 'its key names a column twice'
    WHEN unknown.names IS NOT NULL
    THEN format('it has no columns %s (those that are computed when they are read don''t count)', unknown.names)
    WHEN key IS NULL AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
    THEN 'it has no primary key; say which columns are the key, or {} for messages without one'
    WHEN topic IS NULL AND outbox.topic_of_changes("table") IS NULL THEN 'its name can''t be part of a topic''s; say which topic'
END
FROM (SELECT 1) AS one
LEFT JOIN pg_class c ON c.oid = "table"
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT string_agg(name, ', ') AS names FROM unnest(columns || key) AS name
    WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = "table" AND a.attname = name AND a.attnum > 0
                      AND NOT a.attisdropped AND a.attgenerated <> 'v')) AS unknown
$$;
