-- The heart of pull: reads late and fresh messages of the partitions whose turn it is and moves their cursors, in one
-- statement and so with one snapshot. Late rows are found by xid, fresh ones by (partition_id, "offset"), positions by
-- ctid. "ends" are the ends of the logs, read before: a cursor that has taken all it sees moves there, over the holes of
-- rollbacks, and remembers the transactions that are open. on_failure is NULL for an unordered subscription; an ordered one
-- remembers its batch, and where failures park the key, messages of a parked key go to wait behind it. Internal: see pull.
CREATE FUNCTION outbox.take(
    reader int, worker bigint, turns int[], ends bigint[], max_messages int, lease_size int, leased boolean, on_failure text
) RETURNS TABLE (
    lease_id bigint, attempt smallint, redelivered boolean, topic text, partition smallint, priority smallint, partition_id int,
    "offset" bigint, published_at timestamptz, key text, headers jsonb, payload json, body bytea
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
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
    ), taken AS MATERIALIZED (
        SELECT f.*, (row_number() OVER in_order - 1) / coalesce(lease_size, max_messages) AS piece,
               row_number() OVER in_order AS place,
               CASE WHEN on_failure = 'park' AND f.key IS NOT NULL
                    THEN outbox.lane_is_taken(reader, f.partition_id, f.key) ELSE false END AS waits
        FROM found f
        WINDOW in_order AS (ORDER BY f.nth, f.fresh, f."offset")
        ORDER BY f.nth, f.fresh, f."offset" LIMIT max_messages
    ), cut AS (  -- where the limit fell: turns before it have been read to the end, turns after it not at all
        SELECT CASE WHEN count(*) = max_messages THEN max(nth) ELSE cardinality(turns) + 1 END AS nth FROM taken
    ), progress AS MATERIALIZED (
        SELECT t.*, took.last_fresh,
               CASE WHEN t.nth < cut.nth THEN greatest(t."offset", t.ended, took.last_fresh)
                    ELSE coalesce(took.last_fresh, t."offset") END AS reached
        FROM turn t
        JOIN cut ON t.nth <= cut.nth
        LEFT JOIN (SELECT nth, max("offset") AS last_fresh FROM taken WHERE fresh GROUP BY nth) AS took ON took.nth = t.nth
    ), known AS MATERIALIZED (  -- the open transactions of each cursor; no row that was taken is above its floor
        SELECT t.nth, o.xid, greatest(o.floor, caught.last) AS floor
        FROM turn t
        CROSS JOIN LATERAL unnest(t.open, t.floor) AS o (xid, floor)
        LEFT JOIN (SELECT nth, xid, max("offset") AS last FROM taken WHERE NOT fresh GROUP BY nth, xid) AS caught
               ON caught.nth = t.nth AND caught.xid = o.xid
    ), running AS MATERIALIZED (  -- draws our xid, after the snapshot
        SELECT outbox.open_xids(pg_current_snapshot()) AS xids
        WHERE EXISTS (SELECT FROM progress WHERE reached > "offset")
    ), earlier AS (  -- rows of transactions that run are not theirs, but of another cluster's (a restore); theirs lie above
        SELECT t.nth, t.xid, max(t."offset") AS last
        FROM running CROSS JOIN taken t
        WHERE t.fresh AND t.xid = ANY (running.xids)
        GROUP BY t.nth, t.xid
    ), batch AS MATERIALIZED (
        SELECT CASE WHEN leased THEN outbox.new_lease_id() END AS lease_id, b.*,
               topic.name AS topic, part.number, part.priority
        FROM (SELECT t.partition_id, t.piece, min(t."offset") AS low, max(t."offset") AS high, count(*) AS messages
              FROM taken t WHERE NOT t.waits GROUP BY t.partition_id, t.piece ORDER BY min(t.place)) AS b
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
                    ELSE (SELECT range_agg(int8range(t."offset", t."offset", '[]')) FROM taken t
                          WHERE t.partition_id = b.partition_id AND t.piece = b.piece AND NOT t.waits) END
        FROM batch b WHERE leased
    ), parked AS (  -- after a seek back it may wait there already
        INSERT INTO outbox.redelivery (subscription_id, partition_id, "offset", attempt, due_at, lane,
                                       published_at, key, headers, payload, body)
        SELECT reader, t.partition_id, t."offset", 1, 'infinity', t.key, t.published_at, t.key, t.headers, t.payload, t.body
        FROM taken t WHERE t.waits
        ON CONFLICT DO NOTHING
    )
    SELECT b.lease_id, 1::smallint, false, b.topic, b.number, b.priority, t.partition_id,
           t."offset", t.published_at, t.key, t.headers, t.payload, t.body
    FROM taken t
    JOIN batch b ON b.partition_id = t.partition_id AND b.piece = t.piece
    WHERE NOT t.waits
    ORDER BY t.place;
END $$;
