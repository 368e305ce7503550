-- The slots of a retention class that hold something, but for the one that is written, and the one that will be within a second
-- (whoever publishes would wait for us): the oldest first. over_at: when the time of all that is in it is over, by the clock and
-- by what lies there. Internal: see slots_due.
CREATE FUNCTION outbox.slots_of(class outbox.retention, now timestamptz) RETURNS TABLE (
    slot int, leaf regclass, written_until timestamptz, over_at timestamptz
)
LANGUAGE plpgsql
AS $$
DECLARE
    keep interval := class.slot_width * (class.slots - 2);
    next int := outbox.slot(class.first_slot, class.slots, class.slot_width,
                            slots_of.now + least(interval '1 second', class.slot_width / 4));
BEGIN
    FOR slot, leaf, written_until IN
        SELECT s.slot, format('outbox.message_%s', s.slot)::regclass, outbox.written_until(class, s.slot, slots_of.now)
        FROM generate_series(class.first_slot, class.first_slot + class.slots - 1) AS s (slot)
        ORDER BY 3, 1
    LOOP
        CONTINUE WHEN written_until IS NULL OR slot = next OR pg_relation_size(leaf) = 0;
        over_at := written_until + keep;
        IF over_at <= slots_of.now THEN  -- a publisher that did not know of a change may have written it since
            over_at := greatest(over_at, outbox.newest_in(leaf) + keep);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
