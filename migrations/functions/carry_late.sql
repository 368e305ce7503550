-- Copies what was committed to a slot since a snapshot, if it has a key and is of a compacted topic: it may be the newest. What
-- is copied though it is not goes when its new slot is emptied. By xid. Internal: see empty_slot, which has the slot's lock.
CREATE FUNCTION outbox.carry_late(leaf regclass, target int, since pg_snapshot) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
BEGIN
    EXECUTE format($query$
        INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, key, headers, payload, body, expires_at)
        SELECT $1, m.partition_id, m."offset", m.xid, m.published_at, m.key, m.headers, m.payload, m.body, m.expires_at
        FROM (SELECT m.* FROM %1$s m WHERE m.xid = ANY (ARRAY(SELECT pg_snapshot_xip($2)))
              UNION ALL
              SELECT m.* FROM %1$s m WHERE m.xid >= pg_snapshot_xmax($2) AND m.xid < pg_snapshot_xmax(pg_current_snapshot())) AS m
        WHERE m.key IS NOT NULL AND m.partition_id = ANY ($3)
          AND NOT EXISTS (SELECT FROM outbox.message c
                          WHERE c.slot = $1 AND c.partition_id = m.partition_id AND c."offset" = m."offset")
    $query$, leaf) USING target, since, outbox.compacted(leaf);
END $$;
