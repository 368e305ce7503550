-- Where a reader stands that stood at start, open and floor, and looked: by the rules of take, step 3. "last_fresh": the last
-- offset it read beyond start; "ended": the log's end, seen before the snapshot, or NULL if it has not read all of it; "running":
-- what the snapshot showed open; "xids", "offsets": the last row it read of each transaction of open or running. Internal: see
-- read.
CREATE FUNCTION outbox.next_place(
    start bigint, open xid8[], floor bigint[], last_fresh bigint, ended bigint, running xid8[], snapshot pg_snapshot,
    xids xid8[], offsets bigint[]
) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    reached bigint := greatest(start, last_fresh, ended);
    opened xid8[] := '{}';
    floors bigint[] := '{}';
BEGIN
    IF reached > start THEN  -- one that is first seen open now can't have written at or below start
        SELECT coalesce(array_agg(r.xid ORDER BY r.nth), '{}'),
               coalesce(array_agg(greatest(coalesce(known.floor, start), caught."offset") ORDER BY r.nth), '{}')
        INTO opened, floors
        FROM unnest(running) WITH ORDINALITY AS r (xid, nth)
        LEFT JOIN unnest(next_place.open, next_place.floor) AS known (xid, floor) ON known.xid = r.xid
        LEFT JOIN unnest(xids, offsets) AS caught (xid, "offset") ON caught.xid = r.xid;
    ELSIF next_place.open <> '{}' THEN  -- it forgets those that ended, unless some of their rows may wait
        SELECT coalesce(array_agg(known.xid ORDER BY known.nth), '{}'),
               coalesce(array_agg(greatest(known.floor, caught."offset") ORDER BY known.nth), '{}')
        INTO opened, floors
        FROM unnest(next_place.open, next_place.floor) WITH ORDINALITY AS known (xid, floor, nth)
        LEFT JOIN unnest(xids, offsets) AS caught (xid, "offset") ON caught.xid = known.xid
        WHERE NOT pg_visible_in_snapshot(known.xid, next_place.snapshot) OR next_place.ended IS NULL;
    END IF;
    RETURN outbox.place_of(reached, opened, floors);
END $$;
