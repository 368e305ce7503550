-- Cancels a message: who has not been handed it yet will not be, and where it waits for another try it does so no more. Returns the
-- subscriptions that it was kept from; those that had it in hand, or were done with it, are not among them. A publish that commits
-- late can be cancelled once it has committed. In a READ COMMITTED transaction; waits for pulls of its
-- partition that are under way.
CREATE FUNCTION outbox.cancel(partition_id int, "offset" bigint) RETURNS text[]
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    kept_from int[];
    waited record;
BEGIN
    PERFORM outbox.require_read_committed('cancel');
    kept_from := ARRAY(SELECT outbox.untaken(cancel.partition_id, cancel."offset"));
    IF kept_from <> '{}' THEN
        UPDATE outbox.message m SET expires_at = '-infinity'
        WHERE m.partition_id = cancel.partition_id AND m."offset" = cancel."offset";
    END IF;
    WITH gone AS (
        DELETE FROM outbox.redelivery r
        WHERE r.partition_id = cancel.partition_id AND r."offset" = cancel."offset" AND r.lease_id IS NULL
          AND r.subscription_id = ANY (ARRAY(SELECT c.subscription_id FROM outbox.cursor c WHERE c.partition_id = cancel.partition_id))
        RETURNING r.*
    )
    SELECT array_agg(g.subscription_id) AS readers, array_agg(g.partition_id) AS partitions, array_agg(g.lane) AS lanes
    INTO waited FROM gone g;
    PERFORM outbox.leave_lanes(array_agg(w.reader), array_agg(w.partition_id), array_agg(w.lane))
    FROM unnest(waited.readers, waited.partitions, waited.lanes) AS w (reader, partition_id, lane) WHERE w.lane IS NOT NULL;
    RETURN ARRAY(SELECT s.name FROM outbox.subscription s WHERE s.id = ANY (kept_from || waited.readers) ORDER BY s.name);
END $$;
