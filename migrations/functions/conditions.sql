-- Which messages of a topic a subscription takes: NULL if all of them, else what fits one of "own", or one of "spare" and none of
-- "others" (alternate bindings: what nobody else takes). Internal: see take.
CREATE FUNCTION outbox.conditions(reader int, topic text) RETURNS jsonb
LANGUAGE sql STABLE
AS $$
WITH matching AS MATERIALIZED (
    SELECT b.subscription_id = reader AS own, b.alternate, b.headers IS NULL AND b.filter IS NULL AS all_of_it,
           jsonb_build_object('headers', b.headers, 'match', b.match, 'filter', b.filter) AS condition
    FROM outbox.binding b
    WHERE (b.subscription_id = reader OR NOT b.alternate) AND outbox.topic_matches(conditions.topic, b.pattern)
), found AS (
    SELECT coalesce(jsonb_agg(m.condition) FILTER (WHERE m.own AND NOT m.alternate), '[]') AS own,
           coalesce(jsonb_agg(m.condition) FILTER (WHERE m.own AND m.alternate), '[]') AS spare,
           coalesce(jsonb_agg(m.condition) FILTER (WHERE NOT m.own), '[]') AS others,
           coalesce(bool_or(m.all_of_it) FILTER (WHERE m.own AND NOT m.alternate), false) AS takes_all,
           coalesce(bool_or(m.all_of_it) FILTER (WHERE m.own AND m.alternate), false) AND count(*) FILTER (WHERE NOT m.own) = 0 AS takes_rest
    FROM matching m
)
SELECT jsonb_build_object('own', f.own, 'spare', f.spare, 'others', f.others)
FROM found f
WHERE NOT (f.takes_all OR f.takes_rest)
$$;
