-- Turns failed messages of leases into redeliveries and dead letters, with their content from the log or, if they were
-- redelivered before, from outbox.redelivery. Rows are found by exact keys. Internal: see settle, which holds the leases.
CREATE FUNCTION outbox.fail(worker bigint, leases bigint[], offsets int8multirange[], failures jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    all_of record;
BEGIN
    PERFORM outbox.take_turns(array_agg(l.subscription_id), array_agg(l.partition_id))
    FROM outbox.lease l
    JOIN outbox.subscription s ON s.id = l.subscription_id AND s.on_failure IS NOT NULL
    WHERE l.id = ANY (leases)
    HAVING count(*) > 0;

    WITH failed AS MATERIALIZED (
        SELECT DISTINCT ON (l.id, f."offset")
               l.id AS lease_id, l.subscription_id, l.partition_id, f."offset", l.attempt, l.redelivered, s.on_failure,
               f.delay, coalesce(f.reason, 'rejected') AS reason, (coalesce(f.charged, true))::int AS charge,
               f.error || jsonb_build_object('attempt', l.attempt, 'at', clock_timestamp(), 'worker', worker) AS error
        FROM jsonb_to_recordset(failures) AS f (
            lease bigint, "offset" bigint, delay float8, reason text, error jsonb, charged boolean)
        JOIN unnest(leases, fail.offsets) AS asked (id, offsets) ON asked.id = f.lease
        CROSS JOIN LATERAL (SELECT l.* FROM outbox.lease l WHERE l.id = asked.id OFFSET 0) AS l
        JOIN outbox.subscription s ON s.id = l.subscription_id
        WHERE coalesce(asked.offsets, l.offsets) @> f."offset"
    ), whole AS MATERIALIZED (
        SELECT f.*, NULL::tid AS row, m.published_at, m.key, m.headers, m.payload, m.body, nullif(m.expires_at, '-infinity') AS expires_at, '[]'::jsonb AS errors
        FROM failed f
        CROSS JOIN LATERAL outbox.messages(f.partition_id, f."offset", f."offset") AS m
        WHERE NOT f.redelivered
        UNION ALL
        SELECT f.*, own.row, r.published_at, r.key, r.headers, r.payload, r.body, r.expires_at, r.errors
        FROM failed f
        CROSS JOIN LATERAL outbox.redelivery_of(f.subscription_id, f.partition_id, f."offset", f.lease_id) AS own (row)
        JOIN outbox.redelivery r ON r.ctid = own.row
        WHERE f.redelivered
    ), again AS (
        UPDATE outbox.redelivery r
        SET attempt = w.attempt + w.charge, due_at = clock_timestamp() + make_interval(secs => w.delay),
            errors = outbox.add_error(w.errors, w.error), lease_id = NULL, suspect = false
        FROM whole w
        WHERE r.ctid = w.row AND w.delay IS NOT NULL
    ), waiting AS (  -- after a seek back, one message can be in several leases: a redelivery in other hands stays there
        INSERT INTO outbox.redelivery AS r (subscription_id, partition_id, "offset", attempt, due_at, lane,
                                            published_at, key, headers, payload, body, expires_at, errors)
        SELECT subscription_id, partition_id, "offset", attempt + charge,
               CASE WHEN outbox.is_next(subscription_id, partition_id, lane, row_number() OVER (
                        PARTITION BY subscription_id, partition_id, lane ORDER BY "offset"))
                    THEN clock_timestamp() + make_interval(secs => delay) ELSE 'infinity' END, lane,
               published_at, key, headers, payload, body, expires_at, outbox.add_error(errors, error)
        FROM (SELECT DISTINCT ON (subscription_id, partition_id, "offset")
                     w.*, outbox.lane_of(w.on_failure, w.key) AS lane
              FROM whole w
              WHERE delay IS NOT NULL AND NOT redelivered
                AND NOT EXISTS (SELECT FROM whole o WHERE o.redelivered AND (o.subscription_id, o.partition_id, o."offset")
                                                                          = (w.subscription_id, w.partition_id, w."offset"))
             ) AS once
        ON CONFLICT (subscription_id, partition_id, "offset") DO UPDATE
        SET attempt = excluded.attempt, due_at = CASE WHEN r.lane IS NULL THEN excluded.due_at ELSE r.due_at END,
            errors = excluded.errors, suspect = false
        WHERE r.lease_id IS NULL
    )
    SELECT count(*) FILTER (WHERE redelivered) + (SELECT count(*) FROM failed f WHERE NOT f.redelivered) AS kept,  -- an unlogged one may be gone
           array_agg(subscription_id) FILTER (WHERE dies) AS subscription_ids,
           array_agg(partition_id) FILTER (WHERE dies) AS partition_ids, array_agg("offset") FILTER (WHERE dies) AS offsets,
           array_agg(attempt::int) FILTER (WHERE dies) AS attempts, array_agg(reason) FILTER (WHERE dies) AS reasons,
           array_agg(published_at) FILTER (WHERE dies) AS published_at, array_agg(key) FILTER (WHERE dies) AS keys,
           array_agg(headers) FILTER (WHERE dies) AS headers, array_agg(payload) FILTER (WHERE dies) AS payloads,
           array_agg(body) FILTER (WHERE dies) AS bodies, array_agg(outbox.add_error(errors, error)) FILTER (WHERE dies) AS errors
    INTO all_of
    FROM (SELECT *, delay IS NULL AS dies FROM whole) AS w;
    IF all_of.kept <> jsonb_array_length(failures) THEN
        RAISE EXCEPTION 'of % failures only % are of messages that are being settled, once each', jsonb_array_length(failures), all_of.kept
            USING ERRCODE = 'OB007';
    END IF;
    PERFORM outbox.bury(all_of.subscription_ids, all_of.partition_ids, all_of.offsets, all_of.attempts, all_of.reasons,
                        all_of.published_at, all_of.keys, all_of.headers, all_of.payloads, all_of.bodies, all_of.errors);
END $$;
