-- Which offsets of which partitions a replay has to go through, as things stand: of the topics that match a pattern, those
-- published at from_at or after, and before to_at (10 seconds more, since times don't ascend quite as offsets do: replay looks at
-- each), as far as the subscription has taken them. What comes later is left to its cursors.
CREATE FUNCTION outbox.replay_ranges(
    subscription text, pattern text, from_at timestamptz DEFAULT NULL, to_at timestamptz DEFAULT NULL, number int DEFAULT NULL
) RETURNS TABLE (topic text, partition smallint, priority smallint, partition_id int, first bigint, last bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    reader int := outbox.subscription_id(replay_ranges.subscription);
    chosen int[] := outbox.chosen_partitions(reader, replay_ranges.pattern, replay_ranges.number);
BEGIN
    IF replay_ranges.from_at >= replay_ranges.to_at THEN
        RAISE EXCEPTION 'nothing is published from % on and before %', replay_ranges.from_at, replay_ranges.to_at
            USING ERRCODE = 'OB007', HINT = 'from_at must be before to_at.';
    END IF;
    RETURN QUERY
    SELECT l.topic, l.partition, l.priority, l.partition_id, there.first, there.last
    FROM outbox.lag l
    CROSS JOIN LATERAL (
        SELECT CASE WHEN from_at IS NULL THEN 1 ELSE outbox.offset_at(l.partition_id, from_at) END AS first,
               least(l."offset", outbox.offset_at(l.partition_id, to_at + interval '10 seconds') - 1) AS last
        OFFSET 0) AS there
    WHERE l.subscription = replay_ranges.subscription AND l.partition_id = ANY (chosen) AND there.first <= there.last
    ORDER BY l.topic, l.partition_id;
END $$;
