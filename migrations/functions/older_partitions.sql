-- The partitions of a topic that come before one of them: of an older generation and the same priority, and the rows of backfills,
-- which come before all. Internal: see has_older and older_is_read.
CREATE FUNCTION outbox.older_partitions(partition_id int) RETURNS SETOF outbox.partition
LANGUAGE sql STABLE
AS $$
SELECT older.*
FROM outbox.partition p
JOIN outbox.partition older ON older.topic_id = p.topic_id AND older.generation < p.generation
                              AND (older.priority = p.priority OR older.generation = 0)
WHERE p.id = older_partitions.partition_id
$$;
