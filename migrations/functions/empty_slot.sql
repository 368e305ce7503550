-- Empties a slot of the log that slots_due returned, unless somebody holds it; returns who, or NULL if it is empty now. Of
-- compacted topics the newest messages are carried forward: that takes its time before the lock that keeps readers waiting.
-- Internal: see rotate.
CREATE FUNCTION outbox.empty_slot(class text, slot int, leaf regclass, early boolean, now timestamptz) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    target int;
    partitions int[] := outbox.compacted(leaf);
    since pg_snapshot;
BEGIN
    SELECT outbox.slot(r.first_slot, r.slots, r.slot_width, empty_slot.now) INTO target
    FROM outbox.retention r WHERE r.name = empty_slot.class;
    IF partitions <> '{}' THEN
        since := pg_current_snapshot();
    END IF;
    RETURN outbox.truncate_slot(
        leaf,
        format('SELECT outbox.slot_keeper(%L, %s, %L, %L)', class, slot, early, empty_slot.now - clock_timestamp()),
        CASE WHEN partitions <> '{}' THEN
            format('SELECT outbox.carry_forward(%L, %s, %s, %L, %L)', leaf, slot, target, partitions, empty_slot.now) END,
        format('SELECT outbox.finish_slot(%L, %s, %L, %L)', leaf, target, since, empty_slot.now));
END $$;
