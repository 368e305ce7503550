-- Drops what waits for a subscription: moves its cursors to the ends of their logs, and deletes the redeliveries that nobody has in
-- hand. Returns how many offsets and redeliveries that was. What is in workers' hands goes on, transactions that are open now are
-- delivered, dead letters stay. The whole of its own READ COMMITTED transaction; waits for pulls that are under way.
CREATE FUNCTION outbox.purge(subscription text) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    reader int := outbox.subscription_id(purge.subscription);
    partitions int[];
    ends bigint[];
    purged bigint;
    retried bigint;
BEGIN
    PERFORM outbox.require_own_transaction('purge');
    SELECT array_agg(c.partition_id ORDER BY c.partition_id) INTO partitions FROM outbox.cursor c WHERE c.subscription_id = reader;
    PERFORM pg_advisory_xact_lock(outbox.turn_lock(reader, p)) FROM unnest(partitions) AS p;
    SELECT array_agg(outbox.log_end(p.sequence) ORDER BY p.id) INTO ends FROM outbox.partition p WHERE p.id = ANY (partitions);

    WITH running AS MATERIALIZED (
        SELECT outbox.open_xids(pg_current_snapshot()) AS xids
    ), placed AS MATERIALIZED (
        SELECT e.partition_id, at.*
        FROM unnest(partitions, ends) AS e (partition_id, ended)
        CROSS JOIN running
        CROSS JOIN LATERAL outbox.place(e.partition_id, e.ended, running.xids) AS at
    ), newest AS MATERIALIZED (
        SELECT DISTINCT ON (p.partition_id) p.partition_id, p."offset", p.lease_id, p.low
        FROM outbox.position p WHERE p.subscription_id = reader ORDER BY p.partition_id, p."offset" DESC
    ), behind AS (
        SELECT l.*, n."offset" AS before, n.lease_id, n.low FROM placed l JOIN newest n ON n.partition_id = l.partition_id
        WHERE n."offset" < l."offset"
    ), moved AS (
        INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor, lease_id, low)
        SELECT reader, b.partition_id, b."offset", b.open, b.floor, b.lease_id, b.low FROM behind b
    ), stood AS (  -- at the end, and yet waiting for what commits late
        UPDATE outbox.position p SET open = l.open, floor = l.floor
        FROM placed l JOIN newest n ON n.partition_id = l.partition_id
        WHERE n."offset" >= l."offset" AND p.subscription_id = reader AND p.partition_id = n.partition_id AND p."offset" = n."offset"
    ), left_behind AS (
        DELETE FROM outbox.position p USING behind b
        WHERE p.subscription_id = reader AND p.partition_id = b.partition_id AND p."offset" < b."offset"
    )
    SELECT coalesce(sum(b."offset" - b.before), 0) INTO purged FROM behind b;
    DELETE FROM outbox.redelivery r WHERE r.subscription_id = reader AND r.lease_id IS NULL;
    GET DIAGNOSTICS retried = ROW_COUNT;
    RETURN purged + retried;
END $$;
