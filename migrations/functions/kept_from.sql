-- Where the last messages of a partition begin, "keep" of them: what lies before is too much. Offsets that nobody committed don't
-- count, which is why it looks. Reads so many index entries from the newest end. Internal: see pull_batches.
CREATE FUNCTION outbox.kept_from(partition_id int, "offset" bigint, ended bigint, keep bigint) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    slots record;
BEGIN
    SELECT p.first_slot, p.last_slot INTO slots FROM outbox.partition p WHERE p.id = kept_from.partition_id;
    IF keep <= 0 THEN
        RETURN ended;
    END IF;
    RETURN least(ended - keep, coalesce((
        SELECT m."offset" - 1 FROM outbox.message m
        WHERE m.slot BETWEEN slots.first_slot AND slots.last_slot AND m.partition_id = kept_from.partition_id
          AND m."offset" > kept_from."offset"
        ORDER BY m."offset" DESC OFFSET keep - 1 LIMIT 1), kept_from."offset"));
END $$;
