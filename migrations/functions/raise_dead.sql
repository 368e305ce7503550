-- Turns the dead letters at (partition_ids[i], offsets[i]) into redeliveries, by their exact keys, each 1 / rate seconds after
-- the one before. In an ordered subscription only the first of a lane gets a time: the next is due when it is done; the caller
-- has the turns of the partitions. What another transaction redrives is waited for, and gone then. They expire no more. Internal: see redrive.
CREATE FUNCTION outbox.raise_dead(
    reader int, partition_ids int[], offsets bigint[], rate float8, due_from timestamptz, payload json
) RETURNS bigint
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    redriven bigint;
BEGIN
    PERFORM FROM outbox.dead_letter d
    WHERE d.subscription_id = reader
      AND (d.partition_id, d."offset") IN (SELECT * FROM unnest(partition_ids, raise_dead.offsets))
    ORDER BY d.partition_id, d."offset" FOR UPDATE;

    WITH risen AS (
        DELETE FROM outbox.dead_letter d USING outbox.subscription s
        WHERE s.id = reader AND d.subscription_id = reader
          AND (d.partition_id, d."offset") IN (SELECT * FROM unnest(partition_ids, raise_dead.offsets))
        RETURNING d.*, outbox.lane_of(s.on_failure, d.key) AS lane
    ), timed AS (  -- not long ago, or nobody would look for it for a while: see pull_batches
        SELECT r.*, greatest(clock_timestamp() - interval '1 second', due_from + coalesce(
                   make_interval(secs => (row_number() OVER (ORDER BY partition_id, "offset") - 1) / rate), '0')) AS due_at
        FROM risen r
    )
    INSERT INTO outbox.redelivery AS r (subscription_id, partition_id, "offset", attempt, due_at, lane,
                                        published_at, key, headers, payload, body, expires_at, errors)
    SELECT subscription_id, partition_id, "offset", 1,
           CASE WHEN outbox.is_next(subscription_id, partition_id, lane, row_number() OVER (
                    PARTITION BY subscription_id, partition_id, lane ORDER BY "offset"))
                THEN due_at ELSE 'infinity' END, lane, published_at, key,
           CASE WHEN raise_dead.payload IS NOT NULL AND body IS NOT NULL THEN headers - 'content-type' ELSE headers END,
           coalesce(raise_dead.payload, payload), CASE WHEN raise_dead.payload IS NULL THEN body END, 'infinity', errors
    FROM timed
    ON CONFLICT (subscription_id, partition_id, "offset") DO UPDATE
    SET attempt = 1, due_at = CASE WHEN r.lane IS NULL THEN excluded.due_at ELSE r.due_at END, suspect = false,
        headers = excluded.headers, payload = excluded.payload, body = excluded.body, expires_at = 'infinity'
    WHERE r.lease_id IS NULL;
    GET DIAGNOSTICS redriven = ROW_COUNT;
    RETURN redriven;
END $$;
