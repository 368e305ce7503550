-- May an ordered subscription go on with a partition? Not while its last batch is in flight, nor, unless failures park the
-- key, while something of that batch waits for another try. By the newest position, the lease's id and the batch's offsets.
-- The caller has the partition's turn. Internal: see pull.
CREATE FUNCTION outbox.is_in_order(subscription_id int, partition_id int, on_failure text) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    last record;
BEGIN
    SELECT p.lease_id, p.low INTO last FROM outbox.position p
    WHERE p.subscription_id = is_in_order.subscription_id AND p.partition_id = is_in_order.partition_id
    ORDER BY p."offset" DESC LIMIT 1;
    RETURN NOT EXISTS (SELECT FROM outbox.lease l WHERE l.id = last.lease_id)
       AND (on_failure = 'park' OR last.low IS NULL OR NOT EXISTS (
            SELECT FROM outbox.redelivery r
            WHERE r.subscription_id = is_in_order.subscription_id AND r.partition_id = is_in_order.partition_id
              AND r."offset" >= last.low AND r.lane IS NOT NULL));  -- what is replayed has none
END $$;
