-- Moves cursors of a subscription, all in one transaction: waits for the turns of the partitions, reads the ends of their logs,
-- and then where each starts, what is open and our xid in one statement. keep_late: what the cursors waited for is delivered all
-- the same. Leases and redeliveries stay as they are. The caller's transaction is its own, see require_own_transaction. Returns a
-- row a cursor: where it stood, and stands. Internal: see seek, seek_to and purge.
CREATE FUNCTION outbox.move_cursors(
    reader int, partition_ids int[], kind text, "offset" bigint, at timestamptz, keep_late boolean
) RETURNS TABLE (partition_id int, before bigint, after bigint)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    ends bigint[];
    moved record;
BEGIN
    PERFORM outbox.take_turns(array_fill(reader, ARRAY[cardinality(partition_ids)]), partition_ids);
    SELECT array_agg(outbox.log_end(p.sequence) ORDER BY a.nth) INTO ends
    FROM unnest(partition_ids) WITH ORDINALITY AS a (id, nth) JOIN outbox.partition p ON p.id = a.id;

    FOR moved IN
        WITH running AS MATERIALIZED (  -- the snapshot, and the transactions that it shows open
            SELECT outbox.open_xids(pg_current_snapshot()) AS xids
        )
        SELECT e.id, coalesce(stood."offset", 0) AS before, stood.lease_id, stood.low, place."offset" AS after,
               waits.open, waits.floor,
               (stood."offset", stood.open, stood.floor) = (place."offset", waits.open, waits.floor) AS stays
        FROM unnest(partition_ids, ends) AS e (id, ended)
        CROSS JOIN running
        LEFT JOIN LATERAL (
            SELECT p.* FROM outbox.position p WHERE p.subscription_id = reader AND p.partition_id = e.id
            ORDER BY p."offset" DESC LIMIT 1
        ) AS stood ON true  -- one that was lost is put there again
        CROSS JOIN LATERAL outbox.place(
            e.id, outbox.start_target(e.id, e.ended, kind, move_cursors."offset", move_cursors.at), running.xids
        ) AS place
        CROSS JOIN LATERAL (
            SELECT coalesce(array_agg(coalesce(now.xid, old.xid) ORDER BY now.nth, old.xid), '{}') AS open,
                   coalesce(array_agg(greatest(now.floor, old.floor) ORDER BY now.nth, old.xid), '{}') AS floor
            FROM unnest(place.open, place.floor) WITH ORDINALITY AS now (xid, floor, nth)
            FULL JOIN (SELECT * FROM unnest(stood.open, stood.floor) AS o (xid, floor) WHERE keep_late) AS old
                   ON old.xid = now.xid
        ) AS waits
        ORDER BY e.id
    LOOP
        partition_id := moved.id;
        before := moved.before;
        after := moved.after;
        RETURN NEXT;
        CONTINUE WHEN moved.stays;
        DELETE FROM outbox.position p WHERE p.subscription_id = reader AND p.partition_id = moved.id;
        INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor, lease_id, low)
        VALUES (reader, moved.id, moved.after, moved.open, moved.floor, moved.lease_id, moved.low);
    END LOOP;
END $$;
