-- Delivers messages of a partition again, to one subscription alone: of the first max_messages from offset "first" to "last"
-- those of [from_at, to_at) that have the key and headers, fit the filter and its bindings, and that it has taken. Each is a
-- redelivery in no lane, that no ttl ends, due now or "rate" a second from due_from on. "skipped": they fit, but wait, or are in
-- hand. Goes on at reached + 1, unless that is beyond "last". dry_run writes nothing.
CREATE FUNCTION outbox.replay(
    subscription text, partition_id int, first bigint, last bigint,
    from_at timestamptz DEFAULT NULL, to_at timestamptz DEFAULT NULL, key text DEFAULT NULL, headers jsonb DEFAULT NULL,
    filter text DEFAULT NULL, rate float8 DEFAULT NULL, due_from timestamptz DEFAULT NULL, max_messages int DEFAULT 1000, dry_run boolean DEFAULT false,
    OUT reached bigint, OUT replayed bigint, OUT skipped bigint
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    reader outbox.subscription;
    home record;
    wanted jsonb;  -- as conditions() has them; NULL: all
    own jsonb;
BEGIN
    SELECT * INTO reader FROM outbox.subscription s WHERE s.id = outbox.subscription_id(replay.subscription);
    SELECT t.id, t.name, p.first_slot, p.last_slot INTO home
    FROM outbox.cursor c JOIN outbox.partition p ON p.id = c.partition_id JOIN outbox.topic t ON t.id = p.topic_id
    WHERE c.subscription_id = reader.id AND c.partition_id = replay.partition_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'subscription "%" has no cursor on partition %', replay.subscription, replay.partition_id
            USING ERRCODE = 'OB004', HINT = 'SELECT * FROM outbox.lag shows its partitions.';
    ELSIF NOT (replay.rate > 0 AND replay.rate < 'infinity') OR (replay.max_messages >= 1) IS NOT TRUE THEN
        RAISE EXCEPTION 'rate must be more than 0 messages a second, max_messages at least 1, not % and %',
            replay.rate, replay.max_messages USING ERRCODE = 'OB007';
    END IF;
    PERFORM outbox.check_filter(replay.filter);
    IF replay.filter IS NOT NULL OR nullif(replay.headers, '{}') IS NOT NULL THEN
        wanted := jsonb_build_array(jsonb_build_object(
            'headers', nullif(replay.headers, '{}'), 'match', 'all', 'filter', replay.filter));
    END IF;
    own := CASE WHEN reader.is_filtered THEN outbox.conditions(reader.id, home.name) END;

    WITH stands AS MATERIALIZED (  -- in one snapshot with what is read: taken is what it has passed, and does not wait for
        SELECT p."offset", p.open, p.floor,
               (SELECT range_agg(l.offsets) FROM outbox.lease l  -- those of its redeliveries wait, too
                WHERE l.subscription_id = reader.id AND l.partition_id = replay.partition_id) AS in_hand
        FROM outbox.position p WHERE p.subscription_id = reader.id AND p.partition_id = replay.partition_id
        ORDER BY p."offset" DESC LIMIT 1
    ), seen AS MATERIALIZED (
        SELECT m.* FROM outbox.message m
        WHERE m.slot BETWEEN home.first_slot AND home.last_slot AND m.partition_id = replay.partition_id
          AND m."offset" BETWEEN replay.first AND replay.last
        ORDER BY m."offset" LIMIT replay.max_messages
    ), fitting AS MATERIALIZED (
        SELECT m.*, coalesce(s.in_hand @> m."offset", false) OR outbox.is_waiting(reader.id, m.partition_id, m."offset") AS waits
        FROM seen m CROSS JOIN stands s
        WHERE m."offset" <= s."offset"
          AND NOT EXISTS (SELECT FROM unnest(s.open, s.floor) AS o (xid, floor) WHERE o.xid = m.xid AND o.floor < m."offset")
          AND m.expires_at IS DISTINCT FROM '-infinity'
          AND (replay.from_at IS NULL OR m.published_at >= replay.from_at)
          AND (replay.to_at IS NULL OR m.published_at < replay.to_at)
          AND (replay.key IS NULL OR m.key = replay.key)
          AND (wanted IS NULL OR outbox.fits_any(wanted, m.headers, m.payload))
          AND (own IS NULL OR outbox.fits(own, m.headers, m.payload))
    ), again AS (
        INSERT INTO outbox.redelivery (subscription_id, partition_id, "offset", attempt, due_at,
                                       published_at, key, headers, payload, body, expires_at)
        SELECT reader.id, f.partition_id, f."offset", 1,  -- not long ago, or nobody would look for it: see pull_batches
               greatest(clock_timestamp() - interval '1 second', coalesce(replay.due_from, clock_timestamp())
                        + coalesce(make_interval(secs => (row_number() OVER (ORDER BY f."offset") - 1) / replay.rate), '0')),
               f.published_at, f.key, f.headers, f.payload, f.body, 'infinity'
        FROM fitting f WHERE NOT f.waits AND NOT replay.dry_run
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT CASE WHEN (SELECT count(*) FROM seen) < replay.max_messages THEN replay.last
                ELSE (SELECT max(m."offset") FROM seen m) END,
           CASE WHEN replay.dry_run THEN count(*) FILTER (WHERE NOT f.waits) ELSE (SELECT count(*) FROM again) END, count(*)
    INTO reached, replayed, skipped
    FROM fitting f;
    skipped := skipped - replayed;
    IF replayed > 0 AND NOT replay.dry_run THEN
        PERFORM outbox.wake(home.id);
    END IF;
END $$;
