-- Gives dead letters of a subscription another life: due now, attempts counted from 1 again, their history kept. All of
-- them, or those at (partition_ids[i], offsets[i]). Returns how many.
CREATE FUNCTION outbox.redrive(subscription text, partition_ids int[] DEFAULT NULL, offsets bigint[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    redriven bigint;
BEGIN
    IF cardinality(partition_ids) IS DISTINCT FROM cardinality(redrive.offsets) THEN
        RAISE EXCEPTION 'redrive got % partition_ids and % offsets: the arrays must be of one length',
            cardinality(partition_ids), cardinality(redrive.offsets) USING ERRCODE = 'OB007';
    END IF;
    IF NOT EXISTS (SELECT FROM outbox.subscription s WHERE s.name = redrive.subscription) THEN
        RAISE EXCEPTION 'subscription "%" does not exist', redrive.subscription USING ERRCODE = 'OB004';
    END IF;
    PERFORM outbox.take_turns(array_agg(s.id), array_agg(c.partition_id))
    FROM outbox.subscription s
    JOIN outbox.cursor c ON c.subscription_id = s.id
    WHERE s.name = redrive.subscription AND s.on_failure IS NOT NULL
      AND (partition_ids IS NULL OR c.partition_id = ANY (partition_ids))
    HAVING count(*) > 0;

    WITH risen AS (
        DELETE FROM outbox.dead_letter d USING outbox.subscription s
        WHERE s.name = redrive.subscription AND d.subscription_id = s.id
          AND (partition_ids IS NULL
               OR (d.partition_id, d."offset") IN (SELECT * FROM unnest(partition_ids, redrive.offsets)))
        RETURNING d.*, outbox.lane_of(s.on_failure, d.key) AS lane
    )
    INSERT INTO outbox.redelivery AS r (subscription_id, partition_id, "offset", attempt, due_at, lane,
                                        published_at, key, headers, payload, body, errors)
    SELECT subscription_id, partition_id, "offset", 1,
           CASE WHEN outbox.is_next(subscription_id, partition_id, lane, row_number() OVER (
                    PARTITION BY subscription_id, partition_id, lane ORDER BY "offset"))
                THEN clock_timestamp() ELSE 'infinity' END, lane,
           published_at, key, headers, payload, body, errors
    FROM risen
    ON CONFLICT (subscription_id, partition_id, "offset") DO UPDATE
    SET attempt = 1, due_at = CASE WHEN r.lane IS NULL THEN excluded.due_at ELSE r.due_at END, suspect = false
    WHERE r.lease_id IS NULL;
    GET DIAGNOSTICS redriven = ROW_COUNT;
    PERFORM outbox.wake(t.topic_id) FROM (
        SELECT DISTINCT p.topic_id FROM outbox.subscription s
        JOIN outbox.cursor c ON c.subscription_id = s.id
        JOIN outbox.partition p ON p.id = c.partition_id
        WHERE s.name = redrive.subscription AND redriven > 0) AS t;
    RETURN redriven;
END $$;
