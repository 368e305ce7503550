-- Why a slot of the log can't be emptied, as of the time that is now if the clock were put on by "ahead": somebody holds it, or
-- it is not due any more. NULL: nothing is in the way. Its class can't be changed until the transaction ends. Internal: see
-- empty_slot.
CREATE FUNCTION outbox.slot_keeper(class text, slot int, early boolean, ahead interval) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    now timestamptz := clock_timestamp() + ahead;
    ring outbox.retention;
    found record;
BEGIN
    SELECT r.* INTO ring FROM outbox.retention r WHERE r.name = slot_keeper.class FOR SHARE;
    SELECT * INTO found FROM outbox.slots_of(ring, now) AS s WHERE s.slot = slot_keeper.slot;
    RETURN CASE WHEN found.slot IS NULL THEN 'it is being written, or about to be, or empty'
                WHEN NOT early AND found.over_at > now THEN 'it was written again, or is kept for longer now'
                ELSE outbox.slot_holder(found.leaf) END;
END $$;
