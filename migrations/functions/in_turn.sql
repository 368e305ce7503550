-- Puts the partitions that a pull may take from into another order than that of their priority, where one was asked for. fair: those
-- that have no more than their share waiting come first, among equals of priority. And in a tenth of the pulls, if there are several
-- priorities: those whose first message has waited for longer than the subscription's ageing. Internal: see pull_batches.
CREATE FUNCTION outbox.in_turn(
    reader outbox.subscription, max_messages int, now timestamptz,
    INOUT partitions int[], INOUT ends bigint[], INOUT offsets bigint[], INOUT priorities smallint[]
)
LANGUAGE plpgsql
AS $$
DECLARE
    share int := greatest(1, max_messages / cardinality(partitions));
    old_ones_first boolean := priorities[1] <> priorities[cardinality(priorities)] AND random() < 0.1;
BEGIN
    IF NOT (reader.fair OR old_ones_first) THEN
        RETURN;
    END IF;
    SELECT array_agg(u.partition_id ORDER BY u.place), array_agg(u.ended ORDER BY u.place),
           array_agg(u.read_to ORDER BY u.place), array_agg(u.priority ORDER BY u.place)
    INTO partitions, ends, offsets, priorities
    FROM (
        SELECT u.*, row_number() OVER (ORDER BY old_ones_first AND coalesce(first.published_at < now - reader.ageing, false) DESC,
                                       u.priority DESC, reader.fair AND u.ended - u.read_to > share, u.nth) AS place
        FROM unnest(partitions, ends, offsets, priorities) WITH ORDINALITY AS u (partition_id, ended, read_to, priority, nth)
        LEFT JOIN LATERAL (
            SELECT m.published_at FROM outbox.message m
            WHERE old_ones_first AND m.partition_id = u.partition_id AND m."offset" > u.read_to
            ORDER BY m."offset" LIMIT 1
        ) AS first ON true) AS u;
END $$;
