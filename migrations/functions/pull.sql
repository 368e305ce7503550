-- Takes the next messages of a subscription as pull_batches does, a row each: for people, and for languages that like rows. Each
-- row carries its lease. It must be the whole of its own READ COMMITTED transaction, too.
CREATE FUNCTION outbox.pull(
    subscription text, worker bigint, max_messages int DEFAULT 100, lease_size int DEFAULT NULL,
    overdue boolean DEFAULT true, leased boolean DEFAULT NULL, max_bytes bigint DEFAULT 8388608
) RETURNS TABLE (
    lease_id bigint, attempt smallint, redelivered boolean, topic text, partition smallint, priority smallint, partition_id int,
    "offset" bigint, published_at timestamptz, key text, headers jsonb, payload json, body bytea,
    history jsonb
)
LANGUAGE sql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
SELECT b.lease_id, b.attempt, b.redelivered, b.topic, b.partition, b.priority, b.partition_id, m.*, b.history
FROM outbox.pull_batches(subscription, worker, max_messages, lease_size, overdue, leased, max_bytes) AS b
CROSS JOIN LATERAL unnest(b.offsets, b.published_at, b.keys, b.headers, b.payloads, b.bodies) AS m
$$;
