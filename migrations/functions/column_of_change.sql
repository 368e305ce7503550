-- How a column gets into a message, as SQL over the alias r. What is not built in goes by its output function, as text (arrays:
-- of texts): to_json would run a cast to json, which somebody may have written, with our rights. Internal: see rows_of.
CREATE FUNCTION outbox.column_of_change(name text, type oid) RETURNS text
LANGUAGE sql STABLE
AS $$
SELECT format(
    CASE WHEN t.oid < 16384 OR t.typtype = 'd' AND t.typbasetype < 16384 THEN 'r.%1$I'
         WHEN t.typcategory = 'A' AND t.typdelim = ','
         THEN 'CASE WHEN num_nonnulls(r.%1$I) = 1 THEN format(''%%s'', r.%1$I)::text[] END AS %1$I'
         ELSE 'CASE WHEN num_nonnulls(r.%1$I) = 1 THEN format(''%%s'', r.%1$I) END AS %1$I' END,
    column_of_change.name)
FROM pg_type t WHERE t.oid = column_of_change.type
$$;
