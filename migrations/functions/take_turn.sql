-- What take does, for the usual case: one turn of a subscription without conditions, time to live or order, whose messages fit into
-- one lease. A statement of fewer expressions starts faster and takes less time a message. What take says of snapshots and xids
-- holds here. Unless applies is true the case turned out to be another, and nothing has been done. Internal: see take.
CREATE FUNCTION outbox.take_turn(
    reader outbox.subscription, worker bigint, partition_id int, start bigint, ended bigint, bound bigint,
    first_slot smallint, last_slot smallint, max_messages int, max_bytes bigint, lease_size int, leased boolean,
    OUT applies boolean, OUT batch outbox.batch
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    piece record;
    is_full boolean;
    reached bigint;
    running xid8[];
    lease bigint;
BEGIN
    SELECT t.*, home.*, m.*, pg_current_snapshot() AS snapshot INTO piece
    FROM (
        SELECT p.ctid AS place, p."offset", p.open, p.floor, greatest(p."offset", take_turn.start) AS start
        FROM outbox.position p
        WHERE p.subscription_id = reader.id AND p.partition_id = take_turn.partition_id
        ORDER BY p."offset" DESC LIMIT 1
    ) AS t
    CROSS JOIN (
        SELECT part.number, part.priority, topic.name AS topic
        FROM outbox.partition part JOIN outbox.topic ON topic.id = part.topic_id
        WHERE part.id = take_turn.partition_id
    ) AS home
    CROSS JOIN LATERAL (
        SELECT count(*) AS messages, sum(coalesce(octet_length(m.payload::text), octet_length(m.body))) AS bytes,
               count(m.expires_at) AS may_expire, max(m."offset") FILTER (WHERE m.fresh) AS last_fresh,
               min(m."offset") AS low, max(m."offset") AS high,
               array_agg(m."offset") AS offsets, array_agg(m.xid) AS xids, array_agg(m.published_at) AS published_at,
               CASE WHEN count(m.key) > 0 THEN array_agg(m.key) END AS keys,
               CASE WHEN count(m.headers) > 0 THEN array_agg(m.headers) END AS headers,
               CASE WHEN count(m.payload) > 0 THEN array_agg(m.payload) END AS payloads,
               CASE WHEN count(m.body) > 0 THEN array_agg(m.body) END AS bodies
        FROM (
            SELECT false AS fresh, late.*
            FROM outbox.late(take_turn.partition_id, t.open, t.floor, t."offset", max_messages, first_slot, last_slot) AS late
            WHERE t.open <> '{}'
            UNION ALL
            (SELECT true, m.xid, m."offset", m.published_at, m.key, m.headers, m.payload, m.body, m.expires_at
             FROM outbox.message m
             WHERE m.slot BETWEEN first_slot AND last_slot
               AND m.partition_id = take_turn.partition_id AND m."offset" > t.start AND m."offset" <= take_turn.bound
             ORDER BY m."offset" LIMIT max_messages)
            LIMIT max_messages
        ) AS m
    ) AS m;
    applies := piece.may_expire = 0 AND coalesce(piece.bytes, 0) < max_bytes AND piece.messages <= coalesce(lease_size, max_messages);
    IF applies IS NOT TRUE THEN
        RETURN;
    END IF;

    is_full := piece.messages = max_messages;
    reached := greatest(piece."offset", piece.last_fresh, CASE WHEN NOT is_full THEN ended END);
    IF reached > piece."offset" THEN
        running := outbox.open_xids(piece.snapshot);
    END IF;
    IF piece.messages > 0 THEN
        IF leased THEN
            lease := outbox.lease_batch(reader.id, take_turn.partition_id, worker, piece.offsets, piece.low, piece.high);
        END IF;
        batch := (lease, 1, false, piece.topic, piece.number, piece.priority, take_turn.partition_id, piece.offsets,
                  piece.published_at, piece.keys, piece.headers, piece.payloads, piece.bodies, NULL, NULL);
    END IF;
    PERFORM outbox.move_position(reader.id, take_turn.partition_id, piece.place, piece."offset", piece.open, piece.floor, reached, running,
                                 piece.snapshot, piece.xids, piece.offsets, is_full AND piece.last_fresh IS NULL, NULL, NULL);
END $$;
