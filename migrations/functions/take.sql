-- The heart of pull: reads late and fresh messages of the partitions whose turn it is and moves their cursors, in one
-- statement and so with one snapshot. Late rows are found by xid, fresh ones by (partition_id, "offset"), positions by
-- ctid. "ends" are the ends of the logs, read before: a cursor that has taken all it sees moves there, over the holes of
-- rollbacks, and remembers the transactions that are open. on_failure is NULL for an unordered subscription; an ordered one
-- remembers its batch, and where failures park the key, messages of a parked key go to wait behind it. Internal: see pull.
CREATE FUNCTION outbox.take(
    reader int, worker bigint, turns int[], ends bigint[], max_messages int, max_bytes bigint, lease_size int, leased boolean,
    on_failure text
) RETURNS SETOF outbox.batch
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN QUERY
    WITH turn AS MATERIALIZED (
        SELECT t.nth, t.partition_id, t.ended, p.ctid, p."offset", p.open, p.floor
        FROM unnest(turns, ends) WITH ORDINALITY AS t (partition_id, ended, nth)
        CROSS JOIN LATERAL (
            SELECT p.ctid, p."offset", p.open, p.floor FROM outbox.position p
            WHERE p.subscription_id = reader AND p.partition_id = t.partition_id
            ORDER BY p."offset" DESC LIMIT 1
        ) AS p
    ), found AS (
        SELECT t.nth, false AS fresh, m.*
        FROM turn t
        CROSS JOIN LATERAL unnest(t.open, t.floor) AS o (xid, floor)
        CROSS JOIN LATERAL (  -- OFFSET 0: a join would let the planner read the whole log instead
            SELECT m.xid, m.partition_id, m."offset", m.published_at, m.key, m.headers, m.payload, m.body
            FROM outbox.message m
            WHERE m.xid = o.xid AND m.partition_id + 0 = t.partition_id
              AND m."offset" > o.floor AND m."offset" + 0 <= t."offset"
            ORDER BY m."offset" LIMIT max_messages OFFSET 0
        ) AS m
        UNION ALL
        SELECT t.nth, true, m.*
        FROM turn t
        CROSS JOIN LATERAL (
            SELECT m.xid, m.partition_id, m."offset", m.published_at, m.key, m.headers, m.payload, m.body
            FROM outbox.message m
            WHERE m.partition_id = t.partition_id AND m."offset" > t."offset"
            ORDER BY m."offset" LIMIT max_messages
        ) AS m
    ), weighed AS (
        SELECT f.*, row_number() OVER up_to_here AS place, sum(f.size) OVER up_to_here AS bytes
        FROM (SELECT f.*, coalesce(octet_length(f.payload::text), octet_length(f.body)) AS size FROM found f) AS f
        WINDOW up_to_here AS (ORDER BY f.nth, f.fresh, f."offset" ROWS UNBOUNDED PRECEDING)
        ORDER BY f.nth, f.fresh, f."offset" LIMIT max_messages
    ), piece AS MATERIALIZED (  -- what goes into one lease; what waits in a lane is a piece of its own
        SELECT t.nth, t.partition_id, t.waits, t.piece, count(*) AS messages, max(t.bytes) AS bytes,
               max(t."offset") FILTER (WHERE t.fresh) AS last_fresh, min(t."offset") AS low, max(t."offset") AS high,
               array_agg(t."offset") AS offsets,
               array_agg(t.xid) AS xids,
               array_agg(t.published_at) AS published_at,
               CASE WHEN count(t.key) > 0 THEN array_agg(t.key) END AS keys,
               CASE WHEN count(t.headers) > 0 THEN array_agg(t.headers) END AS headers,
               CASE WHEN count(t.payload) > 0 THEN array_agg(t.payload) END AS payloads,
               CASE WHEN count(t.body) > 0 THEN array_agg(t.body) END AS bodies
        FROM (SELECT w.*, (w.place - 1) / coalesce(lease_size, max_messages) AS piece,
                     CASE WHEN on_failure = 'park' AND w.key IS NOT NULL
                          THEN outbox.lane_is_taken(reader, w.partition_id, w.key) ELSE false END AS waits
              FROM weighed w
              WHERE w.bytes - w.size < max_bytes  -- the one that goes beyond it is the last
              OFFSET 0) AS t
        GROUP BY t.nth, t.partition_id, t.waits, t.piece
    ), cut AS (  -- where a limit fell: turns before it have been read to the end, turns after it not at all
        SELECT CASE WHEN sum(messages) = max_messages OR max(bytes) >= max_bytes
                    THEN max(nth) ELSE cardinality(turns) + 1 END AS nth FROM piece
    ), progress AS MATERIALIZED (
        SELECT t.*, took.last_fresh,
               CASE WHEN t.nth < cut.nth THEN greatest(t."offset", t.ended, took.last_fresh)
                    ELSE coalesce(took.last_fresh, t."offset") END AS reached
        FROM turn t
        JOIN cut ON t.nth <= cut.nth
        LEFT JOIN (SELECT nth, max(last_fresh) AS last_fresh FROM piece GROUP BY nth) AS took ON took.nth = t.nth
    ), known AS MATERIALIZED (  -- the open transactions of each cursor; no row that was taken is above its floor
        SELECT t.nth, o.xid, greatest(o.floor, caught.last) AS floor
        FROM turn t
        CROSS JOIN LATERAL unnest(t.open, t.floor) AS o (xid, floor)
        CROSS JOIN LATERAL (
            SELECT max(m."offset") AS last
            FROM piece p CROSS JOIN LATERAL unnest(p.offsets, p.xids) AS m ("offset", xid)
            WHERE p.nth = t.nth AND m.xid = o.xid AND m."offset" <= t."offset"
        ) AS caught
    ), running AS MATERIALIZED (  -- draws our xid, after the snapshot
        SELECT outbox.open_xids(pg_current_snapshot()) AS xids
        WHERE EXISTS (SELECT FROM progress WHERE reached > "offset")
    ), earlier AS (  -- rows of transactions that run are not theirs, but of another cluster's (a restore); theirs lie above
        SELECT p.nth, m.xid, max(m."offset") AS last
        FROM running
        CROSS JOIN piece p
        CROSS JOIN LATERAL unnest(p.offsets, p.xids) AS m ("offset", xid)
        WHERE m.xid = ANY (running.xids)
        GROUP BY p.nth, m.xid
    ), batch AS MATERIALIZED (  -- without the arrays: a copy of them costs more than all the rest
        SELECT CASE WHEN leased THEN outbox.new_lease_id() END AS lease_id, b.*, topic.name AS topic, part.number, part.priority
        FROM (SELECT nth, piece, partition_id, low, high, messages FROM piece WHERE NOT waits ORDER BY nth, piece) AS b
        JOIN outbox.partition part ON part.id = b.partition_id
        JOIN outbox.topic ON topic.id = part.topic_id
    ), advanced AS (
        INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor, lease_id, low)
        SELECT reader, p.partition_id, p.reached, o.open, o.floor, last.lease_id, last.low
        FROM progress p
        CROSS JOIN running
        LEFT JOIN batch last ON on_failure IS NOT NULL AND last.partition_id = p.partition_id
        CROSS JOIN LATERAL (  -- one that is first seen open now can't have written below this cursor
            SELECT coalesce(array_agg(r.xid), '{}') AS open,
                   coalesce(array_agg(greatest(coalesce(known.floor, p."offset"), earlier.last)), '{}') AS floor
            FROM unnest(running.xids) AS r (xid)
            LEFT JOIN known ON known.nth = p.nth AND known.xid = r.xid
            LEFT JOIN earlier ON earlier.nth = p.nth AND earlier.xid = r.xid
        ) AS o
        WHERE p.reached > p."offset"
    ), left_behind AS (
        DELETE FROM outbox.position old USING progress p  -- by ctid: a join on the key may become a scan of the dead
        WHERE old.ctid = p.ctid AND p.reached > p."offset"
    ), looked_after AS (  -- a cursor that stands forgets the transactions that ended, unless some of their rows may wait
        UPDATE outbox.position same SET open = o.open, floor = o.floor, lease_id = last.lease_id, low = last.low
        FROM progress p
        JOIN cut ON true
        LEFT JOIN batch last ON on_failure IS NOT NULL AND last.partition_id = p.partition_id
        CROSS JOIN LATERAL (
            SELECT coalesce(array_agg(known.xid), '{}') AS open, coalesce(array_agg(known.floor), '{}') AS floor
            FROM known
            WHERE known.nth = p.nth
              AND (NOT pg_visible_in_snapshot(known.xid, pg_current_snapshot()) OR p.nth = cut.nth AND p.last_fresh IS NULL)
        ) AS o
        WHERE same.ctid = p.ctid AND p.reached = p."offset" AND (o.open, o.floor) <> (p.open, p.floor)
    ), lease AS (
        INSERT INTO outbox.lease (id, subscription_id, partition_id, worker_id, attempt, redelivered, offsets)
        OVERRIDING SYSTEM VALUE
        SELECT b.lease_id, reader, b.partition_id, worker, 1, false,
               CASE WHEN b.high - b.low + 1 = b.messages THEN int8multirange(int8range(b.low, b.high, '[]'))
                    ELSE (SELECT range_agg(int8range(o, o, '[]')) FROM piece p CROSS JOIN LATERAL unnest(p.offsets) AS o
                          WHERE p.nth = b.nth AND p.piece = b.piece AND NOT p.waits) END
        FROM batch b WHERE leased
    ), parked AS (  -- after a seek back it may wait there already
        INSERT INTO outbox.redelivery (subscription_id, partition_id, "offset", attempt, due_at, lane,
                                       published_at, key, headers, payload, body)
        SELECT reader, p.partition_id, m."offset", 1, 'infinity', m.key, m.published_at, m.key, m.headers, m.payload, m.body
        FROM piece p
        CROSS JOIN LATERAL unnest(p.offsets, p.published_at, p.keys, p.headers, p.payloads, p.bodies)
                        AS m ("offset", published_at, key, headers, payload, body)
        WHERE p.waits
        ON CONFLICT DO NOTHING
    )
    SELECT b.lease_id, 1::smallint, false, b.topic, b.number, b.priority, b.partition_id,
           p.offsets, p.published_at, p.keys, p.headers, p.payloads, p.bodies
    FROM batch b
    JOIN piece p ON p.nth = b.nth AND p.piece = b.piece AND NOT p.waits
    ORDER BY b.nth, b.piece;
END $$;
