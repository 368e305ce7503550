-- Moves the cursor whose position is the row "place" to an offset, after rows with these xids and offsets were taken. running:
-- the transactions that may still commit offsets below it; not needed where it stays. some_wait: rows of transactions that have
-- ended may be left. lease and low: of an ordered subscription. By ctid: by a part of the key it may be a scan of the dead.
-- Internal: see take and take_turn.
CREATE FUNCTION outbox.move_position(
    reader int, partition_id int, place tid, "offset" bigint, open xid8[], floor bigint[], reached bigint, running xid8[],
    snapshot pg_snapshot, xids xid8[], offsets bigint[], some_wait boolean, lease bigint, low bigint
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    floors bigint[] := '{}';
    opened xid8[];
BEGIN
    IF reached > "offset" THEN
        IF running <> '{}' THEN  -- one that is first seen open now can't have written below this cursor. Rows of transactions
            -- that run are not theirs, but of another cluster's (a restore): theirs will lie above
            SELECT array_agg(greatest(coalesce(known.floor, "offset"), earlier.last) ORDER BY r.nth) INTO floors
            FROM unnest(running) WITH ORDINALITY AS r (xid, nth)
            LEFT JOIN unnest(open, floor) AS known (xid, floor) ON known.xid = r.xid
            LEFT JOIN LATERAL (SELECT max(m.taken) AS last FROM unnest(xids, offsets) AS m (xid, taken)
                               WHERE m.xid = r.xid) AS earlier ON true;
        END IF;
        INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor, lease_id, low)
        VALUES (reader, partition_id, reached, running, floors, lease, low);
        DELETE FROM outbox.position old WHERE old.ctid = place;
    ELSIF open <> '{}' THEN  -- it stands, and forgets the transactions that ended, unless some of their rows may wait
        SELECT coalesce(array_agg(known.xid), '{}'), coalesce(array_agg(greatest(known.floor, caught.last)), '{}')
        INTO opened, floors
        FROM unnest(open, floor) AS known (xid, floor)
        LEFT JOIN LATERAL (SELECT max(m.taken) AS last FROM unnest(xids, offsets) AS m (xid, taken)
                           WHERE m.xid = known.xid) AS caught ON true
        WHERE NOT pg_visible_in_snapshot(known.xid, snapshot) OR some_wait;
        UPDATE outbox.position same SET open = opened, floor = floors, lease_id = lease, low = move_position.low
        WHERE same.ctid = place AND (same.open, same.floor) <> (opened, floors);
    END IF;
END $$;
