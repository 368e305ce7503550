-- Moves the cursor of a subscription on one partition: what is above "target" will be delivered (again); a NULL target is
-- the end of the log. Late messages that wait below it are delivered all the same. Redeliveries and leases stay as they
-- are. Waits for a pull that is under way. The whole of its own READ COMMITTED transaction.
CREATE FUNCTION outbox.seek(subscription text, partition_id int, target bigint) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader int;
    ended bigint;
    placed record;
    last record;
BEGIN
    PERFORM outbox.require_own_transaction('seek');
    SELECT c.subscription_id INTO reader
    FROM outbox.subscription s
    JOIN outbox.cursor c ON c.subscription_id = s.id
    WHERE s.name = seek.subscription AND c.partition_id = seek.partition_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'subscription "%" has no cursor on partition %', seek.subscription, seek.partition_id
            USING ERRCODE = 'OB004', HINT = 'SELECT * FROM outbox.lag shows its partitions.';
    END IF;
    PERFORM pg_advisory_xact_lock(outbox.turn_lock(reader, seek.partition_id));
    SELECT outbox.log_end(p.sequence) INTO ended FROM outbox.partition p WHERE p.id = seek.partition_id;
    IF seek.target < 0 OR seek.target > ended THEN
        RAISE EXCEPTION 'offset % is not in partition %: it holds 0 to %', seek.target, seek.partition_id, ended
            USING ERRCODE = 'OB007';
    END IF;
    -- The snapshot, the transactions that it shows open, and those that the old position still waits for.
    WITH running AS MATERIALIZED (
        SELECT outbox.open_xids(pg_current_snapshot()) AS xids
    ), waiting AS MATERIALIZED (
        SELECT o.xid, o.floor
        FROM outbox.position p
        CROSS JOIN LATERAL unnest(p.open, p.floor) AS o (xid, floor)
        WHERE p.subscription_id = reader AND p.partition_id = seek.partition_id
    )
    SELECT at."offset",
           at.open || ARRAY(SELECT w.xid FROM waiting w WHERE w.xid <> ALL (at.open) ORDER BY w.xid) AS open,
           ARRAY(SELECT greatest(o.floor, w.floor) FROM unnest(at.open, at.floor) WITH ORDINALITY AS o (xid, floor, nth)
                 LEFT JOIN waiting w ON w.xid = o.xid ORDER BY o.nth)
           || ARRAY(SELECT w.floor FROM waiting w WHERE w.xid <> ALL (at.open) ORDER BY w.xid) AS floor
    INTO placed
    FROM running CROSS JOIN LATERAL outbox.place(seek.partition_id, coalesce(seek.target, ended), running.xids) AS at;

    SELECT p.lease_id, p.low INTO last FROM outbox.position p
    WHERE p.subscription_id = reader AND p.partition_id = seek.partition_id
    ORDER BY p."offset" DESC LIMIT 1;
    DELETE FROM outbox.position p WHERE p.subscription_id = reader AND p.partition_id = seek.partition_id;
    INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor, lease_id, low)
    VALUES (reader, seek.partition_id, placed."offset", placed.open, placed.floor, last.lease_id, last.low);
END $$;
