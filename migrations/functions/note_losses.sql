-- Counts what subscriptions whose backlog expires have not taken of a slot that is being emptied: fresh messages and late ones,
-- whether or not their conditions would have let them pass; not those that they would have dropped as too old, or that were
-- carried forward. By (partition_id, "offset") and xid. Internal: see empty_slot, which has the slot's lock.
CREATE FUNCTION outbox.note_losses(leaf regclass, target int, now timestamptz) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
BEGIN
    EXECUTE format($query$
        INSERT INTO outbox.loss (subscription_id, partition_id, first_offset, last_offset, messages)
        SELECT c.subscription_id, c.partition_id, lost.first, lost.last, lost.messages
        FROM outbox.subscription s
        JOIN outbox.cursor c ON c.subscription_id = s.id
        JOIN outbox.partition part ON part.id = c.partition_id
        JOIN outbox.topic t ON t.id = part.topic_id
        CROSS JOIN LATERAL (SELECT q."offset", q.open, q.floor FROM outbox.position q
                            WHERE q.subscription_id = c.subscription_id AND q.partition_id = c.partition_id
                            ORDER BY q."offset" DESC LIMIT 1) AS p
        CROSS JOIN LATERAL (
            SELECT count(*) AS messages, min(m."offset") AS first, max(m."offset") AS last
            FROM (SELECT m."offset", m.published_at, m.expires_at FROM %1$s m
                  WHERE m.partition_id = c.partition_id AND m."offset" > p."offset"
                  UNION ALL
                  SELECT m."offset", m.published_at, m.expires_at
                  FROM unnest(p.open, p.floor) AS o (xid, floor)
                  CROSS JOIN LATERAL (SELECT m."offset", m.published_at, m.expires_at FROM %1$s m
                                      WHERE m.xid = o.xid AND m.partition_id + 0 = c.partition_id
                                        AND m."offset" > o.floor AND m."offset" + 0 <= p."offset" OFFSET 0) AS m) AS m
            WHERE m.expires_at IS DISTINCT FROM '-infinity'
              AND (s.expired = 'dead-letter' OR coalesce(m.expires_at > $2, true) AND coalesce(m.published_at > $2 - s.ttl, true))
              AND NOT (t.compact AND EXISTS (SELECT FROM outbox.message k WHERE k.slot = $1 AND k.partition_id = c.partition_id
                                             AND k."offset" = m."offset" OFFSET 0))
        ) AS lost
        WHERE s.backlog = 'expire' AND lost.messages > 0
    $query$, leaf) USING target, note_losses.now;
END $$;
