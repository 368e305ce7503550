-- Copies the newest message of each key of compacted topics, of those in a slot that will be emptied, to another: same offset, xid
-- and time. A key is one of its topic and priority; a later generation is newer. A tombstone (JSON null), or what has expired, ends
-- its key: copied only while older ones lie elsewhere, which would come back. Cancelled ones don't count. What is copied is locked,
-- so that nobody changes it. Reads all messages of these topics. Internal: see empty_slot.
CREATE FUNCTION outbox.carry_forward(leaf regclass, slot int, target int, partitions int[], now timestamptz) RETURNS bigint
LANGUAGE plpgsql
SET enable_nestloop = off
AS $$
DECLARE
    carried bigint;
BEGIN
    EXECUTE format($query$
        WITH home AS MATERIALIZED (
            SELECT p.id, p.topic_id, p.priority, p.generation::bigint AS generation
            FROM outbox.partition p
            WHERE p.backfill_for IS NULL AND (p.topic_id, p.priority) IN (
                SELECT q.topic_id, q.priority FROM outbox.partition q WHERE q.id = ANY ($1))
        ), newest AS MATERIALIZED (
            SELECT DISTINCT ON (h.topic_id, h.priority, m.key)
                   h.topic_id, h.priority, m.key, h.generation, m.partition_id, m."offset",
                   coalesce(json_typeof(m.payload) = 'null' OR m.expires_at <= $4, false) AS ends_key
            FROM %1$s m
            JOIN home h ON h.id = m.partition_id
            WHERE m.partition_id = ANY ($1) AND m.key IS NOT NULL AND m.expires_at IS DISTINCT FROM '-infinity'
            ORDER BY h.topic_id, h.priority, m.key, h.generation DESC, m."offset" DESC
        ), elsewhere AS MATERIALIZED (
            SELECT n.topic_id, n.priority, n.key, max(ARRAY[h.generation, m."offset"]) AS last
            FROM newest n
            JOIN home h ON h.topic_id = n.topic_id AND h.priority = n.priority
            JOIN outbox.message m ON m.partition_id = h.id AND m.key = n.key
            WHERE m.slot <> $2 AND m.partition_id = ANY ($5) AND m.expires_at IS DISTINCT FROM '-infinity'
            GROUP BY n.topic_id, n.priority, n.key
        ), kept AS MATERIALIZED (
            SELECT n.partition_id, n."offset"
            FROM newest n
            LEFT JOIN elsewhere e ON e.topic_id = n.topic_id AND e.priority = n.priority AND e.key = n.key
            WHERE CASE WHEN e.last IS NULL THEN NOT n.ends_key ELSE e.last < ARRAY[n.generation, n."offset"] END
        )
        INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, key, headers, payload, body, expires_at)
        SELECT $3, m.partition_id, m."offset", m.xid, m.published_at, m.key, m.headers, m.payload, m.body, m.expires_at
        FROM kept k
        JOIN %1$s m ON m.partition_id = k.partition_id AND m."offset" = k."offset"
        ORDER BY m.partition_id, m."offset"
        FOR SHARE OF m
    $query$, leaf) USING partitions, carry_forward.slot, target, carry_forward.now, ARRAY(
        SELECT p.id FROM outbox.partition p
        WHERE p.backfill_for IS NULL AND (p.topic_id, p.priority) IN (
            SELECT q.topic_id, q.priority FROM outbox.partition q WHERE q.id = ANY (partitions)));
    GET DIAGNOSTICS carried = ROW_COUNT;
    RETURN carried;
END $$;
