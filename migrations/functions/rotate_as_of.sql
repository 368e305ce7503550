-- What rotate does, at a time that is given: for tests and simulations. Internal.
CREATE FUNCTION outbox.rotate_as_of(now timestamptz) RETURNS TABLE (log text, slot int, held_by text)
LANGUAGE plpgsql
AS $$
DECLARE
    due record;
BEGIN
    IF pg_try_advisory_xact_lock(8031453476610899968 + 68) THEN  -- two would copy the same, or empty more than is too large
        FOR due IN SELECT * FROM outbox.slots_due(rotate_as_of.now) AS d WHERE d.log = 'message' LOOP
            log := due.log;
            slot := due.slot;
            held_by := coalesce(due.held_by, outbox.empty_slot(due.class, due.slot, due.leaf, due.early, rotate_as_of.now));
            RETURN NEXT;
            EXIT WHEN held_by IS NULL;  -- readers wait for it until we commit
        END LOOP;
    END IF;
    RETURN QUERY SELECT * FROM outbox.rotate_keys('deduplication', rotate_as_of.now);
    RETURN QUERY SELECT * FROM outbox.rotate_keys('inbox', rotate_as_of.now);
END $$;
