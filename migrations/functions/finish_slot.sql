-- What is done about a slot of the log in the moment before it is emptied, while nobody else can read or write it: what came
-- since "since" is carried forward, and losses are counted. Internal: see empty_slot.
CREATE FUNCTION outbox.finish_slot(leaf regclass, target int, since pg_snapshot, now timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF since IS NOT NULL THEN
        PERFORM outbox.carry_late(leaf, target, since);
    END IF;
    PERFORM outbox.note_losses(leaf, target, finish_slot.now);
END $$;
