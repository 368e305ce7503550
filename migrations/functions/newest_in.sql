-- When the newest message of a slot was published, but for moments: the last of each partition is looked at, by (partition_id,
-- "offset"). NULL: the slot is empty. Internal: see slots_due.
CREATE FUNCTION outbox.newest_in(leaf regclass) RETURNS timestamptz
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    newest timestamptz;
BEGIN
    EXECUTE format($query$
        SELECT max(m.published_at)
        FROM outbox.partition p
        CROSS JOIN LATERAL (SELECT m.published_at FROM %s m WHERE m.partition_id = p.id ORDER BY m."offset" DESC LIMIT 1) AS m
    $query$, leaf) INTO newest;
    RETURN newest;
END $$;
