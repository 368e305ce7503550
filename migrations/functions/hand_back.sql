-- Turns what leases still hold into redeliveries, due now, and deletes the leases; returns the number of messages.
-- died = true: the worker died. The first time, its messages become suspects, uncharged; a suspect is charged an attempt,
-- and after its last becomes a dead letter. Internal: see release and recover, which lock the leases.
CREATE FUNCTION outbox.hand_back(leases bigint[], died boolean) RETURNS bigint
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    messages bigint;
BEGIN
    WITH ended AS MATERIALIZED (
        DELETE FROM outbox.lease l WHERE l.id = ANY (leases) RETURNING l.*
    ), tried AS (
        UPDATE outbox.redelivery r
        SET lease_id = NULL, due_at = clock_timestamp(), suspect = r.suspect OR died,
            attempt = r.attempt + (r.suspect AND died)::int,
            errors = CASE WHEN r.suspect AND died THEN outbox.add_error(r.errors, jsonb_build_object(
                'class', 'WorkerDied', 'text', format('worker %s died while it held this message', e.worker_id),
                'attempt', r.attempt, 'at', clock_timestamp(), 'worker', e.worker_id)) ELSE r.errors END
        FROM ended e
        CROSS JOIN LATERAL outbox.redelivery_of(e.subscription_id, e.partition_id, lower(e.offsets), e.id) AS own (row)
        WHERE e.redelivered AND r.ctid = own.row
        RETURNING 1
    ), untried AS (
        INSERT INTO outbox.redelivery AS r (subscription_id, partition_id, "offset", attempt, due_at, suspect,
                                            published_at, key, headers, payload, body)
        SELECT e.subscription_id, m.partition_id, m."offset", e.attempt, clock_timestamp(), died,
               m.published_at, m.key, m.headers, m.payload, m.body
        FROM ended e
        CROSS JOIN LATERAL unnest(e.offsets) AS o (range)
        CROSS JOIN LATERAL outbox.messages(e.partition_id, lower(o.range), upper(o.range) - 1) AS m
        WHERE NOT e.redelivered
        ON CONFLICT (subscription_id, partition_id, "offset") DO UPDATE SET due_at = excluded.due_at, lease_id = NULL
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM tried) + (SELECT count(*) FROM untried) INTO messages;

    IF died THEN
        WITH exhausted AS (
            DELETE FROM outbox.redelivery r USING outbox.subscription s
            WHERE s.id = r.subscription_id AND r.suspect AND r.lease_id IS NULL AND r.attempt > s.max_attempts
            RETURNING r.*
        )
        INSERT INTO outbox.dead_letter AS d (subscription_id, partition_id, "offset", attempt, reason,
                                             published_at, key, headers, payload, body, errors)
        SELECT subscription_id, partition_id, "offset", attempt - 1, 'worker died',
               published_at, key, headers, payload, body, errors
        FROM exhausted
        ON CONFLICT (subscription_id, partition_id, "offset") DO UPDATE
        SET attempt = excluded.attempt, reason = excluded.reason, errors = excluded.errors, died_at = excluded.died_at;
    END IF;
    RETURN messages;
END $$;
