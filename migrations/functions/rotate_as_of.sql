-- What rotate does, at a time that is given: for tests and simulations. Internal.
CREATE FUNCTION outbox.rotate_as_of(now timestamptz) RETURNS TABLE (log text, slot int, held_by text)
LANGUAGE plpgsql
AS $$
DECLARE
    due record;
BEGIN
    FOR due IN SELECT * FROM outbox.slots_due(rotate_as_of.now) AS d WHERE d.log = 'message' LOOP
        log := due.log;
        slot := due.slot;
        held_by := coalesce(due.held_by, outbox.truncate_slot(due.leaf, format('SELECT outbox.slot_holder(%L)', due.leaf)));
        RETURN NEXT;
    END LOOP;
    RETURN QUERY SELECT * FROM outbox.rotate_keys('deduplication', rotate_as_of.now);
    RETURN QUERY SELECT * FROM outbox.rotate_keys('inbox', rotate_as_of.now);
END $$;
