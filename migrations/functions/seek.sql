-- Moves the cursor of a subscription on one partition: what is above "target" will be delivered (again); a NULL target is
-- the end of the log. Redeliveries and leases stay as they are. Waits for a pull that is under way.
-- The whole of its own READ COMMITTED transaction: turn, sequence, then snapshot, then xid.
CREATE FUNCTION outbox.seek(subscription text, partition_id int, target bigint) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    reader int;
    ended bigint;
    snapshot pg_snapshot;
    open xid8[];
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
    SELECT coalesce(pg_sequence_last_value(p.sequence), 0) INTO ended FROM outbox.partition p WHERE p.id = seek.partition_id;
    IF seek.target < 0 OR seek.target > ended THEN
        RAISE EXCEPTION 'offset % is not in partition %: it holds 0 to %', seek.target, seek.partition_id, ended
            USING ERRCODE = 'OB007';
    END IF;
    SELECT pg_current_snapshot() INTO snapshot;
    open := outbox.open_xids(snapshot);

    DELETE FROM outbox.position p WHERE p.subscription_id = reader AND p.partition_id = seek.partition_id;
    INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor)
    SELECT reader, seek.partition_id, place.*
    FROM outbox.place(seek.partition_id, coalesce(seek.target, ended), open) AS place;
END $$;
