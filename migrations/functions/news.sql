-- The partitions that a subscription should look into, highest priority first, otherwise in random order: those whose
-- log ends beyond the cursor, and those where a transaction that was open has ended. "ended" before "offset" means that
-- the sequence went backwards. Reads one position and one sequence a partition, until it has found as many as "most". Internal: see pull.
CREATE FUNCTION outbox.news(reader int, most int DEFAULT NULL) RETURNS TABLE (
    partition_id int, "offset" bigint, ended bigint, priority smallint, first_slot smallint, last_slot smallint, waits boolean,
    is_filtered boolean
)
LANGUAGE sql VOLATILE
AS $$
SELECT n.*, (SELECT s.is_filtered FROM outbox.subscription s WHERE s.id = reader)
FROM (
    SELECT c.partition_id, p."offset", log.ended, part.priority, part.first_slot, part.last_slot, c.waits
    FROM (SELECT c.* FROM outbox.cursor c WHERE c.subscription_id = reader ORDER BY random()) AS c
    JOIN outbox.partition part ON part.id = c.partition_id
    CROSS JOIN LATERAL (
        SELECT p."offset", p.open FROM outbox.position p
        WHERE p.subscription_id = c.subscription_id AND p.partition_id = c.partition_id
        ORDER BY p."offset" DESC LIMIT 1
    ) AS p
    CROSS JOIN LATERAL (SELECT outbox.log_end(part.sequence) AS ended OFFSET 0) AS log
    WHERE log.ended <> p."offset" OR NOT p.open <@ ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot()))
    LIMIT most
) AS n
ORDER BY n.priority DESC
$$;
