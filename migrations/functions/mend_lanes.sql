-- Makes due what waits in a lane that nobody is before. settle does that, but a handler's transaction that is not READ COMMITTED
-- can't see what was parked since it began: workers call this now and then. Returns how many it found.
CREATE FUNCTION outbox.mend_lanes() RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stuck record;
BEGIN
    SELECT count(*) AS found, array_agg(s.subscription_id) AS subscription_ids, array_agg(s.partition_id) AS partition_ids,
           array_agg(waiting.lane) AS lanes
    INTO stuck
    FROM outbox.stuck_lanes() s
    CROSS JOIN LATERAL (
        SELECT r.lane FROM outbox.redelivery r
        WHERE r.subscription_id = s.subscription_id AND r.partition_id = s.partition_id AND r."offset" = s."offset" LIMIT 1
    ) AS waiting;
    PERFORM outbox.leave_lanes(stuck.subscription_ids, stuck.partition_ids, stuck.lanes);
    RETURN stuck.found;
END $$;
