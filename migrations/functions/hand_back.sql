-- Turns what leases still hold into redeliveries, due now, and deletes the leases; returns the number of messages.
-- died = true: the worker died. The first time, its messages become suspects, uncharged; a suspect is charged an attempt,
-- and after its last becomes a dead letter. Internal: see release, retire and recover, which lock the leases.
CREATE FUNCTION outbox.hand_back(leases bigint[], died boolean) RETURNS bigint
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    dead record;
BEGIN
    PERFORM outbox.take_turns(array_agg(l.subscription_id), array_agg(l.partition_id))
    FROM outbox.lease l
    JOIN outbox.subscription s ON s.id = l.subscription_id AND s.on_failure IS NOT NULL
    WHERE l.id = ANY (leases)
    HAVING count(*) > 0;

    WITH ended AS MATERIALIZED (
        DELETE FROM outbox.lease l WHERE l.id = ANY (leases) RETURNING l.*
    ), tried AS MATERIALIZED (
        SELECT own.row, r.*, died AND r.suspect AS charged, died AND r.suspect AND r.attempt >= s.max_attempts AS exhausted,
               CASE WHEN died AND r.suspect THEN outbox.add_error(r.errors, jsonb_build_object(
                   'class', 'WorkerDied', 'text', format('worker %s died while it held this message', e.worker_id),
                   'attempt', r.attempt, 'at', clock_timestamp(), 'worker', e.worker_id)) ELSE r.errors END AS history
        FROM ended e
        CROSS JOIN LATERAL outbox.redelivery_of(e.subscription_id, e.partition_id, lower(e.offsets), e.id) AS own (row)
        JOIN outbox.redelivery r ON r.ctid = own.row
        JOIN outbox.subscription s ON s.id = e.subscription_id
        WHERE e.redelivered
    ), again AS (
        UPDATE outbox.redelivery r
        SET lease_id = NULL, due_at = clock_timestamp(), suspect = t.suspect OR died,
            attempt = t.attempt + t.charged::int, errors = t.history
        FROM tried t
        WHERE r.ctid = t.row AND NOT t.exhausted
    ), given_up AS (
        DELETE FROM outbox.redelivery r USING tried t WHERE r.ctid = t.row AND t.exhausted
    ), untried AS (  -- after a seek back, one message can be in several leases: one redelivery of it is enough
        INSERT INTO outbox.redelivery AS r (subscription_id, partition_id, "offset", attempt, due_at, suspect, lane,
                                            published_at, key, headers, payload, body, expires_at)
        SELECT subscription_id, partition_id, "offset", attempt,
               CASE WHEN outbox.is_next(subscription_id, partition_id, lane, row_number() OVER (
                        PARTITION BY subscription_id, partition_id, lane ORDER BY "offset"))
                    THEN clock_timestamp() ELSE 'infinity' END, died, lane,
               published_at, key, headers, payload, body, nullif(expires_at, '-infinity')
        FROM (SELECT DISTINCT ON (e.subscription_id, m.partition_id, m."offset")
                     e.subscription_id, e.attempt, outbox.lane_of(s.on_failure, m.key) AS lane, m.*
              FROM ended e
              JOIN outbox.subscription s ON s.id = e.subscription_id
              CROSS JOIN LATERAL unnest(e.offsets) AS o (range)
              CROSS JOIN LATERAL outbox.messages(e.partition_id, lower(o.range), upper(o.range) - 1) AS m
              WHERE NOT e.redelivered
                AND NOT EXISTS (SELECT FROM tried t WHERE (t.subscription_id, t.partition_id, t."offset")
                                                        = (e.subscription_id, m.partition_id, m."offset"))) AS once
        ON CONFLICT (subscription_id, partition_id, "offset") DO UPDATE
        SET due_at = CASE WHEN r.lane IS NULL THEN excluded.due_at ELSE r.due_at END
        WHERE r.lease_id IS NULL
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM tried) + (SELECT count(*) FROM untried) AS messages,
           array_agg(subscription_id) FILTER (WHERE lane IS NOT NULL) AS lane_subscriptions,
           array_agg(partition_id) FILTER (WHERE lane IS NOT NULL) AS lane_partitions,
           array_agg(lane) FILTER (WHERE lane IS NOT NULL) AS lanes,
           array_agg(subscription_id) AS subscription_ids, array_agg(partition_id) AS partition_ids,
           array_agg("offset") AS offsets, array_agg(attempt::int) AS attempts, array_agg('worker died'::text) AS reasons,
           array_agg(published_at) AS published_at, array_agg(key) AS keys, array_agg(headers) AS headers,
           array_agg(payload) AS payloads, array_agg(body) AS bodies, array_agg(history) AS histories
    INTO dead
    FROM tried WHERE exhausted;
    PERFORM outbox.bury(dead.subscription_ids, dead.partition_ids, dead.offsets, dead.attempts, dead.reasons,
                        dead.published_at, dead.keys, dead.headers, dead.payloads, dead.bodies, dead.histories);
    PERFORM outbox.leave_lanes(dead.lane_subscriptions, dead.lane_partitions, dead.lanes);
    RETURN dead.messages;
END $$;
