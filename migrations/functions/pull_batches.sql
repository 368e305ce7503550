-- Takes the next messages of a subscription, at most max_messages, and leases them to a worker. Unleased (at-most-once, or
-- leased = false) the commit of this call is the settlement. The whole of its own READ COMMITTED transaction; it writes
-- only if it takes something. max_bytes bounds the payloads, of the log's messages and of redeliveries each; lease_size the messages
-- that a lease holds; overdue = false looks only at redeliveries that
-- came due in the last 5 seconds, so that the dead rows of older ones are not walked at every poll. An ordered subscription gets
-- one lease a partition, of any size, and none of a partition whose last one is in flight. A last row without messages says that
-- there may be more, and when.
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
    offsets bigint[];
    priorities smallint[];
    waiting_ones int[];  -- partitions that are read when those of an older generation have been
    bound bigint;
    some_are_held boolean := false;
    low_slot smallint;
    high_slot smallint;
    expected bigint;
    most int;
    is_a_part boolean;  -- there may be more partitions with something new
    waiting numeric;  -- offsets, of all these partitions
    start bigint;
    budget float8;
    owned boolean;
    given bigint := 0;
    max_read int;
    piece outbox.batch;
    share int;
    due int;
    turns int[] := '{}';
    turn_starts bigint[] := '{}';
    turn_ends bigint[] := '{}';
    turn_bounds bigint[] := '{}';
    wanted bigint;
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
    IF reader.paused_at IS NOT NULL THEN
        RETURN NEXT outbox.again_in(1);
        RETURN;
    END IF;
    IF reader.exclusive THEN
        owned := outbox.owns(reader.id, worker);
        IF owned IS NOT TRUE THEN
            RETURN NEXT outbox.again_in(CASE WHEN owned IS NULL THEN 0 ELSE 0.5 END);
            RETURN;
        END IF;
    END IF;
    IF reader.rate IS NOT NULL THEN
        IF NOT pg_try_advisory_xact_lock(outbox.turn_lock(reader.id, 0)) THEN
            RETURN NEXT outbox.again_in(0.01);
            RETURN;
        END IF;
        budget := outbox.left_over(reader, now);
        IF budget < 1 THEN
            RETURN NEXT outbox.again_in((1 - budget) / reader.rate);
            RETURN;
        END IF;
        max_messages := least(max_messages, floor(budget));
    END IF;

    -- 1. What is there: redeliveries that are due, partitions with something new or with open transactions that ended.
    --    The ends of the log are read here, before the snapshot that step 3 reads with.
    --    Redeliveries get half of it at most; of a single message, every other one.
    --    (Their order pins redelivery_due: other indexes lead to all the dead rows, and statistics may make them look as cheap.)
    share := (max_messages + (random() < 0.5)::int) / 2;
    due := least(share, (SELECT count(*) FROM (
        SELECT FROM outbox.redelivery r
        WHERE r.subscription_id = reader.id AND NOT r.suspect
          AND r.lease_id IS NULL AND r.due_at > due_after AND r.due_at <= now
        ORDER BY r.due_at, r.partition_id, r."offset" LIMIT share) AS limited)
        + (SELECT count(*) FROM (
            SELECT FROM outbox.redelivery r
            WHERE r.subscription_id = reader.id AND r.suspect AND r.lease_id IS NULL AND r.due_at <= now
              AND NOT EXISTS (SELECT FROM outbox.lease l WHERE l.worker_id = worker AND l.suspect)
            ORDER BY r.due_at, r.partition_id, r."offset" LIMIT 1) AS suspect));
    --    Of many partitions a few may do, if they are all alike.
    most := CASE WHEN NOT reader.fair AND reader.on_failure IS NULL AND reader.max_backlog IS NULL THEN 64 END;
    LOOP
        SELECT array_agg(n.partition_id), array_agg(n.ended), array_agg(n."offset"), array_agg(n.priority),
               coalesce(bool_or(n.is_filtered), false), min(n.first_slot), max(n.last_slot),
               array_agg(n.partition_id) FILTER (WHERE n.waits), sum(n.ended - n."offset"), count(*) = most
        INTO candidates, ends, offsets, priorities, reader.is_filtered, low_slot, high_slot, waiting_ones, waiting,
             is_a_part  -- of the moment in which the cursors were seen
        FROM outbox.news(reader.id, most) AS n;
        EXIT WHEN is_a_part IS NOT TRUE OR waiting >= max_messages AND NOT outbox.has_priorities(reader.id);
        most := NULL;
    END LOOP;
    some_are_held := coalesce(is_a_part, false);  -- if somebody else has the turns of all these, there are others
    -- where some of it is passed over, more may be read than is asked for
    max_read := CASE WHEN reader.is_filtered OR reader.ttl IS NOT NULL THEN greatest(max_messages, 1000) ELSE max_messages END;
    wanted := CASE WHEN due < max_messages THEN max_read - due ELSE 0 END;
    IF reader.fair OR priorities[1] <> priorities[cardinality(priorities)] THEN
        SELECT i.* INTO candidates, ends, offsets, priorities
        FROM outbox.in_turn(reader, max_messages, now, candidates, ends, offsets, priorities) AS i;
    END IF;

    -- 2. Take turns. Whose turn it is not is skipped, without writing and without drawing an xid.
    FOR i IN 1 .. coalesce(cardinality(candidates), 0) LOOP
        expected := ends[i] - offsets[i];
        IF expected < 0 THEN
            RAISE EXCEPTION 'the cursor of subscription "%" stands % beyond the end of partition %: its sequence went backwards',
                subscription, -expected, candidates[i]
                USING ERRCODE = 'OB003', HINT = format(
                    'A restore left out sequence values. Set the sequence to the highest offset, then outbox.seek(%L, %s, ...).',
                    subscription, candidates[i]);
        END IF;
        EXIT WHEN wanted <= 0;
        IF pg_try_advisory_xact_lock(outbox.turn_lock(reader.id, candidates[i])) THEN
            CONTINUE WHEN reader.on_failure IS NOT NULL
                      AND NOT outbox.is_in_order(reader.id, candidates[i], reader.on_failure);
            bound := 9223372036854775807;
            IF candidates[i] = ANY (waiting_ones) THEN
                bound := CASE WHEN outbox.older_is_read(reader, candidates[i]) THEN ends[i] END;
                some_are_held := some_are_held OR bound IS NULL;
                CONTINUE WHEN bound IS NULL;
            END IF;
            start := CASE WHEN reader.overflow = 'drop-oldest' AND waiting > reader.max_backlog
                          THEN outbox.kept_from(candidates[i], offsets[i], ends[i],
                                                outbox.allotted(reader.max_backlog, i, offsets, ends, priorities))
                          ELSE offsets[i] END;
            turns := turns || candidates[i];
            turn_starts := turn_starts || start;
            turn_ends := turn_ends || ends[i];
            turn_bounds := turn_bounds || bound;
            wanted := wanted - (ends[i] - start);
        END IF;
    END LOOP;

    -- 3. Read late and fresh messages and the snapshot, and write down where the cursors stand; and redeliveries that are due.
    IF budget IS NULL AND NOT reader.is_filtered AND reader.on_failure IS NULL THEN
        IF turns <> '{}' THEN
            RETURN QUERY SELECT * FROM outbox.take(reader, worker, turns, turn_starts, turn_ends, turn_bounds, low_slot, high_slot,
                                                   max_messages - due, max_read - due, max_bytes, lease_size, coalesce(leased, reader.guarantee <> 'at-most-once'), now);
            some_are_held := some_are_held AND NOT FOUND;  -- else the worker looks again anyway
        END IF;
        IF due > 0 THEN
            RETURN QUERY SELECT * FROM outbox.take_due(reader, worker, due, max_bytes, now, due_after);
        END IF;
        IF some_are_held THEN
            RETURN NEXT outbox.again_in(0.05);
        END IF;
    ELSE
        FOR piece IN
            SELECT t.* FROM outbox.take(reader, worker, turns, turn_starts, turn_ends, turn_bounds, low_slot, high_slot,
                                        max_messages - due, max_read, max_bytes, CASE WHEN reader.on_failure IS NULL THEN lease_size END,
                                        coalesce(leased, reader.guarantee <> 'at-most-once'), now) AS t
            WHERE turns <> '{}'
            UNION ALL
            SELECT d.* FROM outbox.take_due(reader, worker, due, max_bytes, now, due_after) AS d WHERE due > 0
        LOOP
            given := given + cardinality(piece.offsets);
            RETURN NEXT piece;
        END LOOP;
        IF budget IS NOT NULL AND given > 0 THEN
            PERFORM outbox.spend(reader.id, budget - given, now);
        END IF;
        IF budget - given < 1 THEN
            RETURN NEXT outbox.again_in((1 - budget + given) / reader.rate);
        ELSIF some_are_held AND given = 0 THEN
            RETURN NEXT outbox.again_in(0.05);
        ELSIF given < max_messages AND (reader.is_filtered OR reader.on_failure = 'park') AND outbox.has_more(reader) THEN
            RETURN NEXT outbox.again_in(CASE WHEN turns = '{}' THEN 0.05 ELSE 0 END);  -- somebody else may have all the turns
        END IF;
    END IF;

    IF reader.guarantee = 'at-least-once' AND leased IS DISTINCT FROM false THEN  -- losing the last moments of a crash only means a redelivery
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
END $$;
