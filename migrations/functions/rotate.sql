-- Empties the slots of the log whose messages are all past their retention and taken by every cursor, and of the keys that need
-- not be remembered any more: one of each a call. Returns the slots that were due, and who holds them (NULL: they are empty
-- now). TRUNCATE is not MVCC-safe: whoever reads history in an older snapshot finds such a slot empty. "now" is for tests.
CREATE FUNCTION outbox.rotate(now timestamptz DEFAULT clock_timestamp()) RETURNS TABLE (log text, slot int, held_by text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kept outbox.retention;
    leaf regclass;
BEGIN
    FOR kept IN SELECT * FROM outbox.retention LOOP  -- the slot that will be written next has the oldest messages
        log := 'message';
        slot := kept.first_slot
            + (floor(extract(epoch FROM rotate.now) / extract(epoch FROM kept.slot_width))::bigint + 1) % kept.slots;
        leaf := format('outbox.%I', 'message_' || slot)::regclass;
        CONTINUE WHEN pg_relation_size(leaf) = 0;
        held_by := outbox.truncate_slot(leaf, format('SELECT outbox.slot_holder(%L)', leaf));
        RETURN NEXT;
    END LOOP;
    RETURN QUERY SELECT * FROM outbox.rotate_keys('deduplication', rotate.now);
    RETURN QUERY SELECT * FROM outbox.rotate_keys('inbox', rotate.now);
END $$;
