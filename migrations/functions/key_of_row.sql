-- The key of a row's messages: of one column its text, of several a JSON array of them, of none NULL.
-- Internal: see publish_changes.
CREATE FUNCTION outbox.key_of_row("row" json, columns text[]) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$
SELECT CASE cardinality(columns) WHEN 1 THEN "row" ->> columns[1]
            ELSE (SELECT json_agg("row" -> c.name ORDER BY c.nth)::text FROM unnest(columns) WITH ORDINALITY AS c (name, nth)) END
$$;
