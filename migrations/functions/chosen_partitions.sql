-- The ids of the partitions that a subscription reads: all, or those of topics that match a pattern, or of these the ones with a
-- number. OB004 if there are none. Internal: see seek_to and replay_ranges.
CREATE FUNCTION outbox.chosen_partitions(reader int, pattern text, number int) RETURNS int[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    chosen int[];
BEGIN
    IF chosen_partitions.number IS NOT NULL AND pattern IS NULL THEN
        RAISE EXCEPTION 'partition % of which topic?', chosen_partitions.number
            USING ERRCODE = 'OB007', HINT = 'Name the topic, too.';
    END IF;
    SELECT array_agg(p.id ORDER BY p.id) INTO chosen
    FROM outbox.partitions_of(reader, coalesce(pattern, '#')) AS o (id)
    JOIN outbox.partition p ON p.id = o.id
    WHERE p.number = coalesce(chosen_partitions.number, p.number);
    IF chosen IS NULL THEN
        RAISE EXCEPTION 'subscription "%" reads no topic that matches "%"%',
            (SELECT s.name FROM outbox.subscription s WHERE s.id = reader), coalesce(pattern, '#'),
            coalesce(', or not its partition ' || chosen_partitions.number, '')
            USING ERRCODE = 'OB004', HINT = 'Bind it first; SELECT * FROM outbox.lag shows what it reads.';
    END IF;
    RETURN chosen;
END $$;
