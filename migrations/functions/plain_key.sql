-- The columns of the key (NULL: the primary key), if a table is plain: row_to_json() shows all of it, and runs nobody's cast.
-- Types that are not built in may have casts, and json may hold what can't be taken apart. NULL: it is not plain.
-- In PL/pgSQL, which keeps the plan. Internal: see publish_changes.
CREATE FUNCTION outbox.plain_key(changed oid, key text[]) RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_variable
BEGIN
    RETURN (
        SELECT CASE
            WHEN bool_or(a.atttypid >= 16384 OR a.atttypid IN ('json'::regtype, 'json[]'::regtype) OR a.attgenerated = 'v')
            THEN NULL
            WHEN key IS NULL
            THEN array_agg(a.attname::text ORDER BY array_position(i.indkey::int2[], a.attnum))
                     FILTER (WHERE a.attnum = ANY (i.indkey))
            WHEN count(*) FILTER (WHERE a.attname = ANY (key)) = cardinality(key) THEN key END
        FROM pg_attribute a
        LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
        WHERE a.attrelid = changed AND a.attnum > 0 AND NOT a.attisdropped);
END $$;
