-- How many messages a subscription with a rate may be handed now. The caller has its turn for partition 0. Internal: see pull_batches.
CREATE FUNCTION outbox.left_over(reader outbox.subscription, now timestamptz) RETURNS float8
LANGUAGE sql STABLE
AS $$
SELECT least(b.burst, coalesce(a.tokens + reader.rate * extract(epoch FROM greatest(now - a.counted_at, interval '0'))::float8, b.burst))
FROM (SELECT coalesce(reader.burst, greatest(1, reader.rate)) AS burst) AS b
LEFT JOIN LATERAL (
    SELECT a.tokens, a.counted_at FROM outbox.allowance a
    WHERE a.subscription_id = reader.id ORDER BY a.number DESC LIMIT 1
) AS a ON true
$$;
