-- The columns of the key (NULL: the primary key), if a table is plain: row_to_json() shows all of it, and runs nobody's cast.
-- Types that are not built in may have casts, and json may hold what can't be taken apart. NULL: it is not plain.
-- Internal: see publish_changes.
CREATE FUNCTION outbox.plain_key(changed oid, key text[]) RETURNS text[]
LANGUAGE sql STABLE
AS $$
SELECT CASE WHEN bool_and(a.atttypid < 16384 AND a.atttypid NOT IN ('json'::regtype, 'json[]'::regtype) AND a.attgenerated <> 'v')
            THEN CASE WHEN plain_key.key IS NULL
                      THEN array_agg(a.attname::text ORDER BY array_position(i.indkey::int2[], a.attnum))
                               FILTER (WHERE a.attnum = ANY (i.indkey))
                      WHEN count(*) FILTER (WHERE a.attname = ANY (plain_key.key)) = cardinality(plain_key.key)
                      THEN plain_key.key END END
FROM pg_attribute a
LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
WHERE a.attrelid = changed AND a.attnum > 0 AND NOT a.attisdropped
$$;
