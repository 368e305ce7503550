-- Appends messages of which some have an idempotency key: those whose key is not known, each key once. Returns how many.
-- Internal: see publish_many.
CREATE FUNCTION outbox.publish_unique(
    topic_id int, partition_ids int[], sequences regclass[], slot smallint, remembered interval,
    payloads json[], keys text[], headers jsonb[], bodies bytea[], idempotency_keys text[], ttls float8[]
) RETURNS bigint
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    kept record;
    published bigint;
BEGIN
    SELECT * INTO kept FROM outbox.enter_slot(0, remembered);
    PERFORM pg_current_xact_id();
    WITH known AS MATERIALIZED (
        SELECT k.key FROM outbox.known_keys(publish_unique.topic_id, idempotency_keys, kept.live) AS k
    ), new AS MATERIALIZED (
        SELECT u.*, 1 + outbox.partition_number(u.key, cardinality(partition_ids)) AS place,
               row_number() OVER (PARTITION BY u.idempotency_key ORDER BY u.nth) AS again
        FROM unnest(payloads, keys, publish_unique.headers, bodies, idempotency_keys, ttls) WITH ORDINALITY
             AS u (payload, key, headers, body, idempotency_key, ttl, nth)
    ), drawn AS MATERIALIZED (
        SELECT n.*, partition_ids[n.place] AS partition_id, nextval(sequences[n.place]) AS "offset"
        FROM (SELECT * FROM new
              WHERE new.idempotency_key IS NULL
                 OR new.again = 1 AND new.idempotency_key NOT IN (SELECT key FROM known)
              ORDER BY new.nth) AS n
    ), claimed AS MATERIALIZED (
        SELECT outbox.claim_keys(publish_unique.topic_id, array_agg(d.idempotency_key), array_agg(d.partition_id),
                                 array_agg(d."offset"), kept.writes, remembered) AS lost
        FROM drawn d WHERE d.idempotency_key IS NOT NULL
        HAVING count(*) > 0
    )
    INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, key, headers, payload, body, expires_at)
    SELECT publish_unique.slot, d.partition_id, d."offset", pg_current_xact_id(), clock_timestamp(), d.key, d.headers, d.payload, d.body,
           clock_timestamp() + make_interval(secs => d.ttl)
    FROM drawn d
    LEFT JOIN claimed ON true
    WHERE d.idempotency_key IS NULL OR d.idempotency_key <> ALL (claimed.lost);
    GET DIAGNOSTICS published = ROW_COUNT;
    RETURN published;
END $$;
