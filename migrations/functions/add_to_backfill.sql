-- Appends messages to the partition of a backfill, in the order of the arrays; who it is for reads them as messages of the topic.
-- Internal: see backfill.
CREATE FUNCTION outbox.add_to_backfill(partition_id int, keys text[], payloads json[]) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_current_xact_id();
    INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, key, headers, payload)
    SELECT outbox.slot(r.first_slot, r.slots, r.slot_width), p.id, nextval(p.sequence), pg_current_xact_id(), clock_timestamp(),
           m.key, '{"outbox-backfill": "true"}', m.payload
    FROM outbox.partition p
    JOIN outbox.retention r ON r.name = p.retention
    CROSS JOIN unnest(add_to_backfill.keys, payloads) AS m (key, payload)
    WHERE p.id = add_to_backfill.partition_id AND p.backfill_for IS NOT NULL;
END $$;
