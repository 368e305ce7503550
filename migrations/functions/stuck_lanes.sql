-- The first messages of lanes of which all wait, and none is due or being tried. It reads a row a lane, and those that wait. Without the lane, which may be a
-- key. See mend_lanes.
CREATE FUNCTION outbox.stuck_lanes() RETURNS TABLE (subscription_id int, partition_id int, "offset" bigint)
LANGUAGE sql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
WITH RECURSIVE first AS (
    (SELECT r.subscription_id, r.partition_id, r.lane, r."offset", r.due_at FROM outbox.redelivery r
     WHERE r.lane IS NOT NULL ORDER BY r.subscription_id, r.partition_id, r.lane, r."offset" LIMIT 1)
    UNION ALL
    SELECT next.* FROM first f CROSS JOIN LATERAL (
        SELECT r.subscription_id, r.partition_id, r.lane, r."offset", r.due_at FROM outbox.redelivery r
        WHERE r.lane IS NOT NULL AND (r.subscription_id, r.partition_id, r.lane) > (f.subscription_id, f.partition_id, f.lane)
        ORDER BY r.subscription_id, r.partition_id, r.lane, r."offset" LIMIT 1
    ) AS next
)
SELECT f.subscription_id, f.partition_id, f."offset" FROM first f
WHERE f.due_at = 'infinity' AND NOT EXISTS (  -- one that came late may lie below the one that is due, or being tried
    SELECT FROM outbox.redelivery r
    WHERE r.subscription_id = f.subscription_id AND r.partition_id = f.partition_id AND r.lane = f.lane
      AND r.due_at <> 'infinity')
$$;
