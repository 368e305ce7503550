-- Drops what waits for a subscription: moves its cursors to the ends of their logs, and deletes the redeliveries that nobody has
-- in hand. Returns how many offsets and redeliveries that was. What is in workers' hands goes on, transactions that are open now
-- are delivered, dead letters stay. The whole of its own READ COMMITTED transaction; waits for pulls that are under way.
CREATE FUNCTION outbox.purge(subscription text) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader int := outbox.subscription_id(purge.subscription);
    partitions int[];
    purged bigint := 0;
    retried bigint;
BEGIN
    PERFORM outbox.require_own_transaction('purge');
    SELECT array_agg(c.partition_id ORDER BY c.partition_id) INTO partitions
    FROM outbox.cursor c WHERE c.subscription_id = reader;
    IF partitions IS NOT NULL THEN
        SELECT coalesce(sum(greatest(m.after - m.before, 0)), 0) INTO purged
        FROM outbox.move_cursors(reader, partitions, 'next', NULL, NULL, keep_late => false) AS m;
    END IF;
    DELETE FROM outbox.redelivery r WHERE r.subscription_id = reader AND r.lease_id IS NULL;
    GET DIAGNOSTICS retried = ROW_COUNT;
    RETURN purged + retried;
END $$;
