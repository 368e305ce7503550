-- Who would get a message, and why, or why not: a row for each binding of each subscription. A subscription gets it if one of its
-- bindings takes it. Dry: nothing is stored.
CREATE FUNCTION outbox.who_gets(
    topic text, headers jsonb DEFAULT NULL, payload json DEFAULT NULL
) RETURNS TABLE (subscription text, pattern text, takes boolean, why text)
LANGUAGE sql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
WITH judged AS MATERIALIZED (
    SELECT s.name, b.*, outbox.topic_matches(who_gets.topic, b.pattern) AS matches,
           outbox.fits_any(jsonb_build_array(jsonb_build_object('headers', b.headers, 'match', b.match)),
                           who_gets.headers, who_gets.payload) AS has_headers,
           outbox.fits_any(jsonb_build_array(jsonb_build_object('filter', b.filter)),
                           who_gets.headers, who_gets.payload) AS has_content
    FROM outbox.binding b
    JOIN outbox.subscription s ON s.id = b.subscription_id
), decided AS (
    SELECT j.*, j.matches AND j.has_headers AND j.has_content AS fits,
           (SELECT string_agg(DISTINCT o.name, ', ' ORDER BY o.name) FROM judged o
            WHERE o.subscription_id <> j.subscription_id AND NOT o.alternate
              AND o.matches AND o.has_headers AND o.has_content) AS takers
    FROM judged j
)
SELECT d.name, d.pattern, d.fits AND NOT (d.alternate AND d.takers IS NOT NULL),
       CASE WHEN NOT d.matches THEN 'the topic does not match'
            WHEN NOT d.has_headers THEN format('it has not %s of the headers %s', d.match, d.headers)
            WHEN NOT d.has_content THEN format('%s is not true for the payload', d.filter)
            WHEN d.alternate AND d.takers IS NOT NULL THEN format('it is an alternate, and %s takes it', d.takers)
            ELSE concat_ws(', ', 'the topic matches',
                           CASE WHEN d.headers IS NOT NULL THEN format('it has %s of the headers %s', d.match, d.headers) END,
                           CASE WHEN d.filter IS NOT NULL THEN format('%s is true', d.filter) END,
                           CASE WHEN d.alternate THEN 'nobody else takes it' END) END
FROM decided d
ORDER BY d.name, NOT (d.fits AND NOT (d.alternate AND d.takers IS NOT NULL)), d.pattern
$$;
