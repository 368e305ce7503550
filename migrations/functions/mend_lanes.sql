-- Makes due what waits in a lane that nobody is before. settle does that, but a handler's transaction that is not READ COMMITTED
-- can't see what was parked since it began: workers call this now and then. Returns how many it found. It reads a row a lane.
CREATE FUNCTION outbox.mend_lanes() RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stuck record;
BEGIN
    WITH RECURSIVE first AS (
        (SELECT r.subscription_id, r.partition_id, r.lane, r.due_at FROM outbox.redelivery r
         WHERE r.lane IS NOT NULL ORDER BY r.subscription_id, r.partition_id, r.lane, r."offset" LIMIT 1)
        UNION ALL
        SELECT next.* FROM first f CROSS JOIN LATERAL (
            SELECT r.subscription_id, r.partition_id, r.lane, r.due_at FROM outbox.redelivery r
            WHERE r.lane IS NOT NULL AND (r.subscription_id, r.partition_id, r.lane) > (f.subscription_id, f.partition_id, f.lane)
            ORDER BY r.subscription_id, r.partition_id, r.lane, r."offset" LIMIT 1
        ) AS next
    )
    SELECT count(*) AS found, array_agg(subscription_id) AS subscription_ids, array_agg(partition_id) AS partition_ids,
           array_agg(lane) AS lanes
    INTO stuck
    FROM first WHERE due_at = 'infinity';
    PERFORM outbox.leave_lanes(stuck.subscription_ids, stuck.partition_ids, stuck.lanes);
    RETURN stuck.found;
END $$;
