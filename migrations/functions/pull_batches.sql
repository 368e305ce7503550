-- Takes the next messages of a subscription, at most max_messages, and leases them to a worker. Unleased (at-most-once, or
-- leased = false) the commit of this call is the settlement. The whole of its own READ COMMITTED transaction; it writes
-- only if it takes something. max_bytes bounds the payloads, of the log's messages and of redeliveries each; lease_size the messages
-- that a lease holds; overdue = false looks only at redeliveries that
-- came due in the last 5 seconds, so that the dead rows of older ones are not walked at every poll. An ordered subscription gets
-- one lease a partition, of any size, and none of a partition whose last one is in flight.
CREATE FUNCTION outbox.pull_batches(
    subscription text, worker bigint, max_messages int DEFAULT 100, lease_size int DEFAULT NULL,
    overdue boolean DEFAULT true, leased boolean DEFAULT NULL, max_bytes bigint DEFAULT 8388608
) RETURNS SETOF outbox.batch
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
SET enable_sort = off
AS $$
DECLARE
    reader outbox.subscription;
    candidates int[];
    ends bigint[];
    expected bigint[];
    share int;
    due int;
    turns int[] := '{}';
    turn_ends bigint[] := '{}';
    wanted bigint := max_messages;
    now timestamptz := clock_timestamp();
    due_after timestamptz := CASE WHEN overdue THEN '-infinity' ELSE now - interval '5 seconds' END;
BEGIN
    PERFORM outbox.require_own_transaction('pull');
    IF max_messages IS NULL OR max_messages NOT BETWEEN 1 AND 100000 OR lease_size < 1 OR max_bytes IS NULL OR max_bytes < 1 THEN
        RAISE EXCEPTION 'max_messages must be 1 to 100000, lease_size and max_bytes at least 1, not %, % and %',
            max_messages, lease_size, max_bytes
            USING ERRCODE = 'OB007';
    END IF;
    SELECT s.* INTO reader FROM outbox.subscription s WHERE s.name = subscription;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'subscription "%" does not exist', subscription
            USING ERRCODE = 'OB004', HINT = 'Create it with outbox.subscribe().';
    END IF;
    IF NOT EXISTS (SELECT FROM outbox.worker w WHERE w.id = worker AND w.retired_at IS NULL) THEN
        RAISE EXCEPTION 'worker % is not registered, or was found dead', worker
            USING ERRCODE = 'OB005', HINT = 'Register it with outbox.register().';
    END IF;

    -- 1. What is there: redeliveries that are due, partitions with something new or with open transactions that ended.
    --    The ends of the log are read here, before the snapshot that step 3 reads with.
    --    Redeliveries get half of it at most; of a single message, every other one.
    share := (max_messages + (random() < 0.5)::int) / 2;
    due := least(share, (SELECT count(*) FROM (
        SELECT FROM outbox.redelivery r
        WHERE r.subscription_id = reader.id AND NOT r.suspect
          AND r.lease_id IS NULL AND r.due_at > due_after AND r.due_at <= now
        LIMIT share) AS limited)
        + (NOT EXISTS (SELECT FROM outbox.lease l WHERE l.worker_id = worker AND l.suspect) AND EXISTS (
            SELECT FROM outbox.redelivery r
            WHERE r.subscription_id = reader.id AND r.suspect AND r.lease_id IS NULL AND r.due_at <= now))::int);
    wanted := wanted - due;
    SELECT array_agg(n.partition_id), array_agg(n.ended), array_agg(n.ended - n."offset")
    INTO candidates, ends, expected
    FROM outbox.news(reader.id) AS n;

    -- 2. Take turns. Whose turn it is not is skipped, without writing and without drawing an xid.
    FOR i IN 1 .. coalesce(cardinality(candidates), 0) LOOP
        IF expected[i] < 0 THEN
            RAISE EXCEPTION 'the cursor of subscription "%" stands % beyond the end of partition %: its sequence went backwards',
                subscription, -expected[i], candidates[i]
                USING ERRCODE = 'OB003', HINT = format(
                    'A restore left out sequence values. Set the sequence to the highest offset, then outbox.seek(%L, %s, ...).',
                    subscription, candidates[i]);
        END IF;
        EXIT WHEN wanted <= 0;
        IF pg_try_advisory_xact_lock(outbox.turn_lock(reader.id, candidates[i])) THEN
            CONTINUE WHEN reader.on_failure IS NOT NULL
                      AND NOT outbox.is_in_order(reader.id, candidates[i], reader.on_failure);
            turns := turns || candidates[i];
            turn_ends := turn_ends || ends[i];
            wanted := wanted - expected[i];
        END IF;
    END LOOP;

    -- 3. Read late and fresh messages and the snapshot, and write down where the cursors stand: one statement.
    IF turns <> '{}' THEN
        RETURN QUERY SELECT * FROM outbox.take(reader.id, worker, turns, turn_ends, max_messages - due, max_bytes,
                                               CASE WHEN reader.on_failure IS NULL THEN lease_size END,
                                               coalesce(leased, reader.guarantee <> 'at-most-once'), reader.on_failure);
    END IF;

    -- 4. Redeliveries that are due.
    IF due > 0 THEN
        RETURN QUERY SELECT * FROM outbox.take_due(reader.id, worker, due, max_bytes, now, due_after);
    END IF;

    IF reader.guarantee = 'at-least-once' AND leased IS DISTINCT FROM false THEN  -- losing the last moments of a crash only means a redelivery
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
END $$;
