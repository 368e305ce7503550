-- Until when a slot of a retention class can have been written to, as of a time; NULL: it is the one that is written then. What
-- lies there since slot_width was another one was written before that was changed. Internal: see slots_due.
CREATE FUNCTION outbox.written_until(class outbox.retention, slot int, now timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    width numeric := extract(epoch FROM class.slot_width);
    turn bigint := floor(extract(epoch FROM written_until.now) / width);
    ago int := (turn % class.slots - (written_until.slot - class.first_slot) + class.slots) % class.slots;
BEGIN
    RETURN CASE WHEN ago > 0 THEN greatest(to_timestamp((turn - ago + 1) * width), class.changed_at) END;
END $$;
