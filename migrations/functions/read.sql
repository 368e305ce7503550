-- Messages of the topics that match a pattern, beyond a position that an earlier call, or read_from, returned; none: from the
-- first. Each partition in the order of its offsets, but what commits late when it does. The last row has no message, but the
-- position behind all. "until": a position not to pass; "newcomers": also partitions that the position does not name. By
-- (partition_id, "offset") and xid; writes and locks nothing. The whole of its own READ COMMITTED transaction.
CREATE FUNCTION outbox.read(
    pattern text, after jsonb DEFAULT '{}', max_messages int DEFAULT 100, max_bytes bigint DEFAULT 8388608,
    with_key text DEFAULT NULL, with_headers jsonb DEFAULT NULL, filter text DEFAULT NULL, since timestamptz DEFAULT NULL,
    before timestamptz DEFAULT NULL, until jsonb DEFAULT NULL, newcomers boolean DEFAULT true
) RETURNS TABLE (
    topic text, partition smallint, priority smallint, partition_id int, "offset" bigint, xid xid8, published_at timestamptz,
    key text, headers jsonb, payload json, body bytea, "position" jsonb, has_more boolean
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
    conditions jsonb := CASE WHEN with_headers IS NOT NULL OR filter IS NOT NULL THEN jsonb_build_array(
        jsonb_build_object('headers', with_headers, 'match', 'all', 'filter', filter)) END;
    selective boolean := conditions IS NOT NULL OR with_key IS NOT NULL OR since IS NOT NULL OR before IS NOT NULL;
    max_read int := CASE WHEN selective THEN greatest(max_messages, 10000) ELSE max_messages END;
    turns record;
    share int;  -- rows of a turn, late and fresh ones each: so that a busy partition starves no other
    here record;
    piece record;
    running xid8[];  -- the transactions that may still commit offsets below those which the snapshot showed
    seen pg_snapshot;
    stopped smallint;  -- the generation of a turn that was not read to its end: those after it have to wait
    is_late boolean;
    was_read int := 0;
    reached jsonb := coalesce(after, '{}');
    returned int := 0;
    bytes bigint := 0;
    late_rows int;  -- of this turn, as are those below
    fresh_rows int;
    last_fresh bigint;
    xids xid8[];
    offsets bigint[];
    place int;
BEGIN
    PERFORM outbox.require_own_transaction('read');
    IF max_messages IS NULL OR max_messages NOT BETWEEN 1 AND 100000 OR max_bytes IS NULL OR max_bytes < 1 THEN
        RAISE EXCEPTION 'max_messages must be 1 to 100000, and max_bytes at least 1, not % and %', max_messages, max_bytes
            USING ERRCODE = 'OB007';
    END IF;
    IF filter IS NOT NULL THEN
        PERFORM outbox.check_filter(filter);
    END IF;

    -- 1. What is there. The ends of the log are read here, before the snapshot that step 2 reads with.
    SELECT array_agg(u.partition_id) AS ids, array_agg(u.topic) AS topics, array_agg(u.number) AS numbers,
           array_agg(u.priority) AS priorities, array_agg(u.generation) AS generations, array_agg(u.ended) AS ends,
           array_agg(u.up_to) AS bounds, min(u.first_slot) AS first_slot, max(u.last_slot) AS last_slot
    INTO turns
    FROM (SELECT u.* FROM outbox.unread(pattern, reached, until, with_key, newcomers) AS u LIMIT 101) AS u;
    share := greatest(max_read / cardinality(turns.ids), 1);

    -- 2. Read, and take the snapshot: ONE statement, and our xid is drawn after it. A turn is a row that begins it, late rows,
    --    fresh rows, and a row that ends it. Nothing sorts them: a nested loop over the turns gives them as they stand here.
    FOR piece IN
        WITH turn AS MATERIALIZED (
            SELECT t.nth, t.partition_id, t.ended, t.up_to, p."offset" AS start, p.open, p.floor
            FROM unnest(turns.ids, turns.ends, turns.bounds) WITH ORDINALITY AS t (partition_id, ended, up_to, nth)
            CROSS JOIN LATERAL outbox.place_in(reached, t.partition_id) AS p
            WHERE t.nth <= 100
        )
        SELECT t.nth, t.partition_id, m.*,
               m.kind IN ('late', 'fresh') AND m.expires_at IS DISTINCT FROM '-infinity'
               AND (with_key IS NULL OR m.key = with_key)
               AND (since IS NULL OR m.published_at >= since) AND (before IS NULL OR m.published_at < before)
               AND (conditions IS NULL OR outbox.fits_any(conditions, m.headers, m.payload)) AS fits
        FROM turn t
        CROSS JOIN LATERAL (
            SELECT 'begin' AS kind, NULL::xid8 AS xid, t.start AS "offset", NULL::timestamptz AS published_at, NULL::text AS key,
                   NULL::jsonb AS headers, NULL::json AS payload, NULL::bytea AS body, NULL::timestamptz AS expires_at,
                   t.ended, t.open, t.floor, pg_current_snapshot() AS snapshot
            UNION ALL
            SELECT 'late', l.*, NULL, NULL, NULL, NULL
            FROM outbox.late(t.partition_id, t.open, t.floor, t.start, share, turns.first_slot, turns.last_slot) AS l
            WHERE t.open <> '{}'
            UNION ALL
            SELECT 'fresh', f.*, NULL, NULL, NULL, NULL
            FROM (SELECT m.xid, m."offset", m.published_at, m.key, m.headers, m.payload, m.body, m.expires_at
                  FROM outbox.message m
                  WHERE m.slot BETWEEN turns.first_slot AND turns.last_slot
                    AND m.partition_id = t.partition_id AND m."offset" > t.start
                    AND m."offset" <= coalesce(t.up_to, 9223372036854775807)
                  ORDER BY m."offset" LIMIT share) AS f
            UNION ALL
            SELECT 'end', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                   least(t.ended, t.up_to), NULL, NULL, NULL
        ) AS m
    LOOP
        IF piece.kind = 'begin' THEN
            EXIT WHEN turns.generations[piece.nth] > stopped;
            IF piece.ended < piece."offset" THEN
                RAISE EXCEPTION 'the position stands % beyond the end of partition %: its sequence went backwards',
                    piece."offset" - piece.ended, piece.partition_id
                    USING ERRCODE = 'OB003', HINT = 'A restore left out sequence values, or the position is of another database.';
            END IF;
            running := coalesce(running, outbox.open_xids(piece.snapshot));
            seen := piece.snapshot;
            here := piece;
            topic := turns.topics[piece.nth];
            partition := turns.numbers[piece.nth];
            priority := turns.priorities[piece.nth];
            partition_id := piece.partition_id;
            late_rows := 0;
            fresh_rows := 0;
            last_fresh := NULL;
            xids := '{}';
            offsets := '{}';
        ELSIF piece.kind = 'end' THEN
            IF late_rows = share OR fresh_rows = share THEN
                stopped := turns.generations[piece.nth];
            END IF;
            reached := reached || jsonb_build_object(here.partition_id::text, outbox.next_place(
                here."offset", here.open, here.floor, last_fresh,
                CASE WHEN late_rows < share AND fresh_rows < share THEN piece.ended END, running, seen, xids, offsets));
        ELSE
            is_late := piece.kind = 'late';
            CONTINUE WHEN NOT is_late AND late_rows = share;  -- late ones may wait that must come before it
            was_read := was_read + 1;
            IF is_late THEN
                late_rows := late_rows + 1;
            ELSE
                fresh_rows := fresh_rows + 1;
                last_fresh := piece."offset";
            END IF;
            IF is_late OR piece.xid = ANY (running) THEN
                place := coalesce(array_position(xids, piece.xid), cardinality(xids) + 1);
                xids[place] := piece.xid;
                offsets[place] := piece."offset";
            END IF;
            IF piece.fits THEN
                "offset" := piece."offset";
                xid := piece.xid;
                published_at := piece.published_at;
                key := piece.key;
                headers := piece.headers;
                payload := piece.payload;
                body := piece.body;
                returned := returned + 1;
                bytes := bytes + coalesce(octet_length(piece.payload::text), octet_length(piece.body));
                RETURN NEXT;
            END IF;
            IF was_read >= max_read OR returned >= max_messages OR bytes >= max_bytes THEN
                stopped := turns.generations[piece.nth];
                reached := reached || jsonb_build_object(here.partition_id::text, outbox.next_place(
                    here."offset", here.open, here.floor, last_fresh, NULL, running, seen, xids, offsets));
                EXIT;
            END IF;
        END IF;
    END LOOP;
    RETURN QUERY
    SELECT e.*, reached, stopped IS NOT NULL OR coalesce(cardinality(turns.ids) > 100, false)
    FROM (VALUES (NULL::text, NULL::smallint, NULL::smallint, NULL::int, NULL::bigint, NULL::xid8, NULL::timestamptz,
                  NULL::text, NULL::jsonb, NULL::json, NULL::bytea)) AS e;  -- no message
END $$;
