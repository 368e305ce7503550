-- Empties the slots of the log whose messages are all past their retention and taken by every cursor, and of the keys that need
-- not be remembered any more: one of each a call. Returns the slots that were due, and who holds them (NULL: they are empty
-- now). TRUNCATE is not MVCC-safe: whoever reads history in an older snapshot finds such a slot empty. "now" is for tests.
CREATE FUNCTION outbox.rotate(now timestamptz DEFAULT clock_timestamp()) RETURNS TABLE (log text, slot int, held_by text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    due record;
BEGIN
    FOR due IN SELECT * FROM outbox.slots_due(rotate.now) AS d WHERE d.log = 'message' LOOP
        log := due.log;
        slot := due.slot;
        held_by := coalesce(due.held_by, outbox.truncate_slot(due.leaf, format('SELECT outbox.slot_holder(%L)', due.leaf)));
        RETURN NEXT;
    END LOOP;
    RETURN QUERY SELECT * FROM outbox.rotate_keys('deduplication', rotate.now);
    RETURN QUERY SELECT * FROM outbox.rotate_keys('inbox', rotate.now);
END $$;
