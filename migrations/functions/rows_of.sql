-- The query for rows of a table as messages show them, and for their keys, where it is not plain, or only some columns are
-- wanted: what stands before the name of a transition table, and what after. A column that is gone is left out. A key that is
-- gone is an error (OB007). Internal: see publish_changes.
CREATE FUNCTION outbox.rows_of(changed regclass, columns text[], key text[]) RETURNS text[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    shape text;
    parts text[];
BEGIN
    SELECT string_agg(outbox.column_of_change(c.name, c.type), ', ' ORDER BY c.attnum)
               FILTER (WHERE columns IS NULL OR c.place IS NOT NULL OR c.name = ANY (columns)),
           array_agg(format('c.%I', c.name) ORDER BY c.place) FILTER (WHERE c.place IS NOT NULL)
    INTO shape, parts
    FROM (SELECT a.attnum, a.attname::text AS name, a.atttypid AS type,
                 CASE WHEN rows_of.key IS NULL THEN array_position(i.indkey::int2[], a.attnum)
                      ELSE array_position(rows_of.key, a.attname::text) END AS place
          FROM pg_attribute a
          LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
          WHERE a.attrelid = changed AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v') AS c;
    IF key IS NULL AND parts IS NULL OR cardinality(key) <> coalesce(cardinality(parts), 0) THEN
        RAISE EXCEPTION 'changes of % can''t be published: %', changed,
            CASE WHEN key IS NULL THEN 'its primary key is gone' ELSE format('of their key %s some columns are gone', key) END
            USING ERRCODE = 'OB007', HINT = format(
                'SELECT outbox.capture(%1$L, …) with the key that it has now, or outbox.uncapture(%1$L).', changed::text);
    END IF;
    RETURN ARRAY[
        format('SELECT row_to_json(c.*), %s FROM ',
               CASE cardinality(parts) WHEN 1 THEN format('to_json(%s) #>> ''{}''', parts[1])
                    ELSE coalesce('json_build_array(' || array_to_string(parts, ', ') || ')::text', 'NULL::text') END),
        format(' r CROSS JOIN LATERAL (SELECT %s) AS c', shape)];
END $$;
