-- The heart of pull: reads late and fresh messages of the partitions whose turn it is, leases them, and moves the cursors. ONE
-- statement reads, with one snapshot, and our xid is drawn after it. Fresh rows are found by (partition_id, "offset"), late ones by
-- xid. "ends" are the ends of the logs, read before: a cursor that has taken all it sees moves there, over the holes of rollbacks.
-- "starts": what lies before is passed over; "bounds": what lies beyond waits. max_read bounds what is read, with what is filtered out.
-- Internal: see pull_batches.
CREATE FUNCTION outbox.take(
    reader outbox.subscription, worker bigint, turns int[], starts bigint[], ends bigint[], bounds bigint[],
    first_slot smallint, last_slot smallint, max_messages int, max_read int,
    max_bytes bigint, lease_size int, leased boolean, now timestamptz
) RETURNS SETOF outbox.batch
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    usual record;
    piece record;
    running xid8[];  -- the transactions that may still commit offsets below those which the snapshot showed
    lease bigint;
    was_read bigint := 0;
    taken bigint := 0;
    handed bigint := 0;
    on_failure text := reader.on_failure;
    is_full boolean := false;
    last_fresh bigint;  -- of this turn, as are those below
    xids xid8[] := '{}';
    offsets bigint[] := '{}';
    last_lease bigint;
    new_low bigint;
    reached bigint;
BEGIN
    IF cardinality(turns) = 1 AND NOT reader.is_filtered AND reader.ttl IS NULL AND on_failure IS NULL
       AND coalesce(ends[1] - starts[1] <= lease_size, true) THEN
        SELECT t.* INTO usual FROM outbox.take_turn(reader, worker, turns[1], starts[1], ends[1], bounds[1], first_slot, last_slot,
                                                    max_messages, max_bytes, lease_size, leased) AS t;
        IF usual.applies THEN
            IF (usual.batch).topic IS NOT NULL THEN
                RETURN NEXT usual.batch;
            END IF;
            RETURN;
        END IF;
    END IF;

    -- 1. Read. A piece goes into one lease; what has another fate is a piece of its own; a turn without messages is a row, too.
    FOR piece IN
        WITH turn AS MATERIALIZED (
            SELECT t.nth, t.partition_id, t.ended, t.bound, greatest(p."offset", t.start) AS start, p.ctid AS place, p."offset", p.open, p.floor,
                   part.number, part.priority, topic.name AS topic,
                   CASE WHEN reader.is_filtered THEN outbox.conditions(reader.id, topic.name) END AS conditions
            FROM unnest(turns, starts, ends, bounds) WITH ORDINALITY AS t (partition_id, start, ended, bound, nth)
            CROSS JOIN LATERAL (
                SELECT p.ctid, p."offset", p.open, p.floor FROM outbox.position p
                WHERE p.subscription_id = reader.id AND p.partition_id = t.partition_id
                ORDER BY p."offset" DESC LIMIT 1
            ) AS p
            JOIN outbox.partition part ON part.id = t.partition_id
            JOIN outbox.topic ON topic.id = part.topic_id
        ), found AS (
            SELECT t.nth, false AS fresh, t.partition_id, t.conditions, m.*
            FROM turn t
            CROSS JOIN LATERAL outbox.late(t.partition_id, t.open, t.floor, t."offset", max_read, first_slot, last_slot) AS m
            WHERE t.open <> '{}'
            UNION ALL
            SELECT t.nth, true, t.partition_id, t.conditions, m.*
            FROM turn t
            CROSS JOIN LATERAL (
                SELECT m.xid, m."offset", m.published_at, m.key, m.headers, m.payload, m.body, m.expires_at
                FROM outbox.message m
                WHERE m.slot BETWEEN first_slot AND last_slot
                  AND m.partition_id = t.partition_id AND m."offset" > t.start AND m."offset" <= t.bound
                ORDER BY m."offset" LIMIT max_read
            ) AS m
        ), weighed AS (
            SELECT f.*, count(f.size) OVER up_to_here AS place, sum(f.size) OVER up_to_here AS bytes
            FROM (SELECT f.*, CASE WHEN f.fate IS DISTINCT FROM 'pass over'
                                   THEN coalesce(octet_length(f.payload::text), octet_length(f.body)) END AS size
                  FROM (SELECT f.*, CASE WHEN f.conditions IS NOT NULL AND NOT outbox.fits(f.conditions, f.headers, f.payload)
                                           OR f.expires_at = '-infinity' THEN 'pass over'
                                         WHEN f.expires_at <= now OR f.published_at <= now - reader.ttl
                                         THEN CASE reader.expired WHEN 'drop' THEN 'pass over' ELSE 'bury' END END AS fate
                        FROM found f OFFSET 0) AS f) AS f
            WINDOW up_to_here AS (ORDER BY f.nth, f.fresh, f."offset" ROWS UNBOUNDED PRECEDING)
            ORDER BY f.nth, f.fresh, f."offset" LIMIT max_read
        ), pieces AS (  -- array_agg takes what comes in order as it comes: the function's settings let the planner only hash
            SELECT w.nth, w.fate, w.piece, count(*) AS messages, max(w.bytes) AS bytes,
                   max(w."offset") FILTER (WHERE w.fresh) AS last_fresh, min(w."offset") AS low, max(w."offset") AS high,
                   array_agg(w."offset") AS offsets, array_agg(w.xid) AS xids, array_agg(w.published_at) AS published_at,
                   CASE WHEN count(w.key) > 0 THEN array_agg(w.key) END AS keys,
                   CASE WHEN count(w.headers) > 0 THEN array_agg(w.headers) END AS headers,
                   CASE WHEN count(w.payload) > 0 THEN array_agg(w.payload) END AS payloads,
                   CASE WHEN count(w.body) > 0 THEN array_agg(w.body) END AS bodies
            FROM (SELECT w.nth, w.fresh, w."offset", w.xid, w.published_at, w.key, w.headers, w.payload, w.body, w.bytes,
                         (w.place - 1) / coalesce(lease_size, max_messages) AS piece,
                         CASE WHEN w.fate IS NOT NULL THEN w.fate
                              WHEN on_failure = 'park' AND w.key IS NOT NULL AND outbox.lane_is_taken(reader.id, w.partition_id, w.key)
                              THEN 'park' END AS fate
                  FROM weighed w
                  WHERE w.place <= max_messages AND coalesce(w.bytes - coalesce(w.size, 0), 0) < max_bytes  -- the one that goes beyond it is the last
                  OFFSET 0) AS w
            GROUP BY w.nth, w.fate, w.piece
        )
        SELECT t.*, p.fate, p.messages, p.bytes, p.last_fresh, p.low, p.high, p.offsets, p.xids, p.published_at,
               p.keys, p.headers, p.payloads, p.bodies, pg_current_snapshot() AS snapshot,
               lead(t.nth) OVER in_order IS DISTINCT FROM t.nth AS is_last
        FROM turn t
        LEFT JOIN pieces p ON p.nth = t.nth
        WINDOW in_order AS (ORDER BY t.nth, p.piece, p.fate)
        ORDER BY t.nth, p.piece, p.fate
    LOOP
        -- 2. Lease, or park, what was read. Our xid is drawn here at the earliest.
        IF piece.messages > 0 THEN
            running := coalesce(running, outbox.open_xids(piece.snapshot));
            was_read := was_read + piece.messages;
            IF piece.fate IS DISTINCT FROM 'pass over' THEN
                taken := taken + piece.messages;
            END IF;
            is_full := is_full OR taken = max_messages OR was_read = max_read OR coalesce(piece.bytes, 0) >= max_bytes;
            last_fresh := greatest(last_fresh, piece.last_fresh);
            IF running <> '{}' OR piece.open <> '{}' THEN
                xids := xids || piece.xids;
                offsets := offsets || piece.offsets;
            END IF;
        END IF;
        IF piece.fate = 'park' THEN
            INSERT INTO outbox.redelivery (subscription_id, partition_id, "offset", attempt, due_at, lane,
                                           published_at, key, headers, payload, body, expires_at)
            SELECT reader.id, m.partition_id, m."offset", 1, 'infinity', m.key, m.published_at, m.key, m.headers, m.payload, m.body,
                   m.expires_at
            FROM unnest(piece.offsets) AS o ("offset")
            CROSS JOIN LATERAL outbox.messages(piece.partition_id, o."offset", o."offset") AS m
            ON CONFLICT DO NOTHING;  -- after a seek back it may wait there already
        ELSIF piece.fate = 'bury' THEN
            PERFORM outbox.bury(array_agg(reader.id), array_agg(m.partition_id), array_agg(m."offset"), NULL,
                                array_agg('expired'::text), array_agg(m.published_at), array_agg(m.key), array_agg(m.headers),
                                array_agg(m.payload), array_agg(m.body), NULL)
            FROM unnest(piece.offsets) AS o ("offset")
            CROSS JOIN LATERAL outbox.messages(piece.partition_id, o."offset", o."offset") AS m;
        ELSIF piece.messages > 0 AND piece.fate IS NULL THEN
            IF leased THEN
                lease := outbox.lease_batch(reader.id, piece.partition_id, worker, piece.offsets, piece.low, piece.high);
            END IF;
            IF on_failure IS NOT NULL THEN
                last_lease := lease;
                new_low := piece.low;
            END IF;
            handed := handed + piece.messages;
            RETURN NEXT (lease, 1, false, piece.topic, piece.number, piece.priority, piece.partition_id, piece.offsets,
                         piece.published_at, piece.keys, piece.headers, piece.payloads, piece.bodies, NULL, NULL)::outbox.batch;
        END IF;
        CONTINUE WHEN NOT piece.is_last;

        -- 3. Move the cursor of this turn: to its end, unless a limit fell in it.
        reached := greatest(piece."offset", last_fresh, CASE WHEN NOT is_full THEN piece.ended END);
        IF reached > piece."offset" THEN
            running := coalesce(running, outbox.open_xids(piece.snapshot));
        END IF;
        PERFORM outbox.move_position(reader.id, piece.partition_id, piece.place, piece."offset", piece.open, piece.floor, reached, running,
                                     piece.snapshot, xids, offsets, is_full AND last_fresh IS NULL, last_lease, new_low);
        EXIT WHEN is_full;
        last_fresh := NULL;
        xids := '{}';
        offsets := '{}';
        last_lease := NULL;
        new_low := NULL;
    END LOOP;
    IF is_full AND handed < was_read THEN  -- what lies behind is not known yet, and nobody rings for it
        RETURN NEXT outbox.again_in(0);
    END IF;
END $$;
