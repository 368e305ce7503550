-- Drops redeliveries that are due and too old, or makes them dead letters, as the subscription wants it. Those that another worker
-- is claiming are skipped; suspects, too, and of an ordered subscription partitions whose turn is another's: leave_lanes would wait
-- for it while we hold rows that the other may want. Internal: see take_due.
CREATE FUNCTION outbox.expire_redeliveries(
    reader outbox.subscription, max_messages int, now timestamptz, due_after timestamptz
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    lanes record;
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT r.ctid FROM outbox.redelivery r
        WHERE r.subscription_id = reader.id AND NOT r.suspect AND r.lease_id IS NULL AND r.due_at > due_after AND r.due_at <= now
          AND outbox.is_expired(r.expires_at, r.published_at, reader.ttl, now)
          AND (reader.on_failure IS NULL OR pg_try_advisory_xact_lock(outbox.turn_lock(reader.id, r.partition_id)))
        ORDER BY r.due_at, r.partition_id, r."offset" LIMIT max_messages
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM outbox.redelivery r USING picked p WHERE r.ctid = p.ctid
        RETURNING r.*, reader.expired = 'dead-letter' AND r.expires_at IS DISTINCT FROM '-infinity' AS dead
    ), buried AS (
        SELECT outbox.bury(array_agg(g.subscription_id), array_agg(g.partition_id), array_agg(g."offset"),
                           array_agg(g.attempt::int), array_agg('expired'::text), array_agg(g.published_at), array_agg(g.key),
                           array_agg(g.headers), array_agg(g.payload), array_agg(g.body), array_agg(g.errors))
        FROM gone g WHERE g.dead
        HAVING count(*) > 0
    )
    SELECT array_agg(g.subscription_id) AS subscription_ids, array_agg(g.partition_id) AS partition_ids,
           array_agg(g.lane) AS lanes, (SELECT count(*) FROM buried) AS buried
    INTO lanes
    FROM gone g WHERE g.lane IS NOT NULL;
    PERFORM outbox.leave_lanes(lanes.subscription_ids, lanes.partition_ids, lanes.lanes);
END $$;
