-- Messages have left these lanes for good: the next of each is due now. Takes the turns of the partitions, so that no pull parks
-- a message meanwhile behind one that is gone. By (subscription_id, partition_id, lane, "offset"). Internal: see settle.
CREATE FUNCTION outbox.leave_lanes(subscription_ids int[], partition_ids int[], lanes text[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    one record;
BEGIN
    IF lanes IS NULL THEN
        RETURN;
    END IF;
    PERFORM outbox.take_turns(subscription_ids, partition_ids);
    FOR one IN SELECT DISTINCT u.* FROM unnest(subscription_ids, partition_ids, lanes) AS u (subscription_id, partition_id, lane) LOOP
        CONTINUE WHEN EXISTS (  -- another of the lane is due, or being tried
            SELECT FROM outbox.redelivery r
            WHERE r.subscription_id = one.subscription_id AND r.partition_id = one.partition_id AND r.lane = one.lane
              AND r.due_at <> 'infinity');
        UPDATE outbox.redelivery r SET due_at = clock_timestamp()
        WHERE r.due_at = 'infinity' AND r.ctid = (
            SELECT first.ctid FROM outbox.redelivery first
            WHERE first.subscription_id = one.subscription_id AND first.partition_id = one.partition_id AND first.lane = one.lane
            ORDER BY first."offset" LIMIT 1);
    END LOOP;
END $$;
