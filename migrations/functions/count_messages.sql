-- How many messages the log holds from one offset of a partition to another, both included; it stops counting at "most". By
-- message_fresh. What was cancelled, or fits no condition of a subscription, counts.
CREATE FUNCTION outbox.count_messages(partition_id int, first bigint, last bigint, most bigint DEFAULT 1000001) RETURNS bigint
LANGUAGE plpgsql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
    slots record;
BEGIN
    SELECT p.first_slot, p.last_slot INTO slots FROM outbox.partition p WHERE p.id = count_messages.partition_id;
    RETURN (SELECT count(*) FROM (
        SELECT FROM outbox.message m
        WHERE m.slot BETWEEN slots.first_slot AND slots.last_slot AND m.partition_id = count_messages.partition_id
          AND m."offset" BETWEEN count_messages.first AND count_messages.last
        LIMIT most) AS counted);
END $$;
