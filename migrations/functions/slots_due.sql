-- The slots that are to be emptied: all that is in them is past its retention; or, of a class that is larger than its max_bytes,
-- the oldest ("early"). Of the log, with who still needs messages of it (NULL: nobody; a transaction may use it all the same),
-- and of the keys. due_at: since when its time is over; of an early one, since when it is not written any more. See rotate.
CREATE FUNCTION outbox.slots_due(now timestamptz DEFAULT clock_timestamp()) RETURNS TABLE (
    log text, slot int, leaf regclass, due_at timestamptz, held_by text, class text, early boolean
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ring outbox.retention;
    found record;
    oldest boolean;
    turn bigint := floor(extract(epoch FROM slots_due.now) / 172800);
BEGIN
    FOR ring IN SELECT r.* FROM outbox.retention r ORDER BY r.first_slot LOOP
        oldest := true;
        FOR found IN SELECT * FROM outbox.slots_of(ring, slots_due.now) LOOP
            early := found.over_at > slots_due.now;
            IF NOT early OR oldest AND outbox.is_too_large(ring) THEN
                log := 'message';
                slot := found.slot;
                leaf := found.leaf;
                due_at := CASE WHEN early THEN found.written_until ELSE found.over_at END;
                held_by := outbox.slot_holder(leaf);
                class := ring.name;
                RETURN NEXT;
            END IF;
            oldest := false;
        END LOOP;
    END LOOP;

    held_by := NULL;
    class := NULL;
    early := false;
    slot := (turn + 1) % 16;
    due_at := to_timestamp(turn * 172800);
    FOREACH log IN ARRAY '{deduplication,inbox}'::text[] LOOP
        leaf := format('outbox.%I', log || '_' || slot)::regclass;
        IF pg_relation_size(leaf) > 0 THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
