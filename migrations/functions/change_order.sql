-- Brings what waits of a subscription into the lanes of another on_failure (NULL: unordered), and lets partitions wait for it.
-- Takes the turns of all its partitions. Internal: see subscribe.
CREATE FUNCTION outbox.change_order(subscription_id int, on_failure text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM outbox.take_turns(array_agg(c.subscription_id), array_agg(c.partition_id))
    FROM outbox.cursor c WHERE c.subscription_id = change_order.subscription_id
    HAVING count(*) > 0;

    UPDATE outbox.redelivery r
    SET lane = waiting.lane,
        due_at = CASE WHEN r.lease_id IS NOT NULL THEN r.due_at
                      WHEN waiting.lane IS NOT NULL AND (waiting.nth > 1 OR waiting.tried) THEN 'infinity'
                      WHEN r.due_at = 'infinity' THEN clock_timestamp()
                      ELSE r.due_at END
    FROM (SELECT w.partition_id, w."offset", w.lane,
                 row_number() OVER (PARTITION BY w.partition_id, w.lane ORDER BY w."offset") AS nth,
                 bool_or(w.lease_id IS NOT NULL) OVER (PARTITION BY w.partition_id, w.lane) AS tried
          FROM (SELECT o.partition_id, o."offset", o.lease_id, outbox.lane_of(change_order.on_failure, o.key) AS lane
                FROM outbox.redelivery o WHERE o.subscription_id = change_order.subscription_id) AS w) AS waiting
    WHERE r.subscription_id = change_order.subscription_id
      AND r.partition_id = waiting.partition_id AND r."offset" = waiting."offset";

    UPDATE outbox.position p SET low = least(p.low, waiting."offset")
    FROM (SELECT r.partition_id, min(r."offset") AS "offset" FROM outbox.redelivery r
          WHERE r.subscription_id = change_order.subscription_id GROUP BY r.partition_id) AS waiting
    WHERE p.subscription_id = change_order.subscription_id AND p.partition_id = waiting.partition_id;
END $$;
