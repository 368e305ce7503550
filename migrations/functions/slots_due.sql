-- The slots that are written next and still hold something: all of it is past its retention. Of the log, with who still needs
-- messages of it (NULL: nobody; a transaction may use it all the same), and of the keys. due_at: since when. See rotate.
CREATE FUNCTION outbox.slots_due(now timestamptz DEFAULT clock_timestamp()) RETURNS TABLE (
    log text, slot int, leaf regclass, due_at timestamptz, held_by text
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ring record;
    turn bigint;
BEGIN
    FOR ring IN
        SELECT 'message' AS name, r.first_slot::int, r.slots::int, extract(epoch FROM r.slot_width) AS width FROM outbox.retention r
        UNION ALL
        SELECT unnest('{deduplication,inbox}'::text[]), 0, 16, 172800
    LOOP
        turn := floor(extract(epoch FROM slots_due.now) / ring.width);
        log := ring.name;
        slot := ring.first_slot + (turn + 1) % ring.slots;
        leaf := format('outbox.%I', log || '_' || slot)::regclass;
        due_at := to_timestamp(turn * ring.width);
        CONTINUE WHEN pg_relation_size(leaf) = 0;
        held_by := CASE WHEN log = 'message' THEN outbox.slot_holder(leaf) END;
        RETURN NEXT;
    END LOOP;
END $$;
