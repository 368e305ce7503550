-- The partitions of compacted topics that have messages in a slot. What was put into the log for one subscription is not
-- compacted. Internal: see empty_slot.
CREATE FUNCTION outbox.compacted(leaf regclass) RETURNS int[]
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    found int[];
BEGIN
    EXECUTE format($query$
        SELECT coalesce(array_agg(p.id), '{}')
        FROM outbox.partition p
        JOIN outbox.topic t ON t.id = p.topic_id
        WHERE t.compact AND p.backfill_for IS NULL AND EXISTS (SELECT FROM %s m WHERE m.partition_id = p.id OFFSET 0)
    $query$, leaf) INTO found;
    RETURN found;
END $$;
