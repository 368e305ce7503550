-- Moves the cursor of a subscription on one partition: what is above "target" will be delivered (again); a NULL target is
-- the end of the log. Late messages that wait below it are delivered all the same. Redeliveries and leases stay as they
-- are. Waits for a pull that is under way. The whole of its own READ COMMITTED transaction. See seek_to for several partitions.
CREATE FUNCTION outbox.seek(subscription text, partition_id int, target bigint) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader int;
    ended bigint;
BEGIN
    PERFORM outbox.require_own_transaction('seek');
    SELECT c.subscription_id, outbox.log_end(p.sequence) INTO reader, ended
    FROM outbox.subscription s
    JOIN outbox.cursor c ON c.subscription_id = s.id
    JOIN outbox.partition p ON p.id = c.partition_id
    WHERE s.name = seek.subscription AND c.partition_id = seek.partition_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'subscription "%" has no cursor on partition %', seek.subscription, seek.partition_id
            USING ERRCODE = 'OB004', HINT = 'SELECT * FROM outbox.lag shows its partitions.';
    ELSIF seek.target < 0 OR seek.target > ended THEN
        RAISE EXCEPTION 'offset % is not in partition %: it holds 0 to %', seek.target, seek.partition_id, ended
            USING ERRCODE = 'OB007';
    END IF;
    PERFORM outbox.move_cursors(reader, ARRAY[seek.partition_id], CASE WHEN seek.target IS NULL THEN 'next' ELSE 'offset' END,
                                seek.target + 1, NULL, keep_late => true);
END $$;
