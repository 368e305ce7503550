-- Has a subscription read all of the partitions that come before this one? Taken, and of an ordered subscription settled, too. What
-- had been committed when this is called is seen: whoever reads this partition no further than its end was before keeps the order
-- of each key, since a publisher that has an offset there began after those of the same key had committed. Internal: see pull_batches.
CREATE FUNCTION outbox.older_is_read(reader outbox.subscription, partition_id int) RETURNS boolean
LANGUAGE sql VOLATILE
AS $$
SELECT NOT EXISTS (
    SELECT FROM outbox.older_partitions(older_is_read.partition_id) AS older
    JOIN outbox.cursor c ON c.subscription_id = reader.id AND c.partition_id = older.id
    CROSS JOIN LATERAL (
        SELECT p."offset", p.open FROM outbox.position p
        WHERE p.subscription_id = c.subscription_id AND p.partition_id = c.partition_id
        ORDER BY p."offset" DESC LIMIT 1) AS p
    WHERE (outbox.log_end(older.sequence) <> p."offset"
           OR NOT p.open <@ ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot()))
           OR reader.on_failure IS NOT NULL
              AND (NOT outbox.is_in_order(reader.id, older.id, reader.on_failure)
                   OR EXISTS (SELECT FROM outbox.redelivery r
                              WHERE r.subscription_id = reader.id AND r.partition_id = older.id AND r.lane IS NOT NULL))))
$$;
