-- Copies a retention class that was changed into the rows of its topics, where publishers look. Internal: see note_homes.
CREATE FUNCTION outbox.note_slots() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE outbox.topic t
    SET first_slot = r.first_slot, slots = r.slots, slot_width = r.slot_width
    FROM outbox.retention r
    WHERE r.name = t.retention AND (t.first_slot, t.slots, t.slot_width) IS DISTINCT FROM (r.first_slot, r.slots, r.slot_width);
    RETURN NULL;
END $$;

CREATE TRIGGER note_slots AFTER UPDATE ON outbox.retention FOR EACH STATEMENT EXECUTE FUNCTION outbox.note_slots();
