-- How many offsets lie between a subscription's cursors and the ends of their logs: an upper bound of the messages that wait there,
-- since transactions that rolled back leave holes until the cursor has passed them. Reads one position and one sequence a partition.
CREATE FUNCTION outbox.backlog(reader int) RETURNS bigint
LANGUAGE sql STABLE
AS $$
SELECT coalesce(sum(greatest(log.ended - p."offset", 0)), 0)::bigint
FROM outbox.cursor c
JOIN outbox.partition part ON part.id = c.partition_id
CROSS JOIN LATERAL (
    SELECT p."offset" FROM outbox.position p
    WHERE p.subscription_id = c.subscription_id AND p.partition_id = c.partition_id
    ORDER BY p."offset" DESC LIMIT 1
) AS p
CROSS JOIN LATERAL (SELECT outbox.log_end(part.sequence) AS ended OFFSET 0) AS log
WHERE c.subscription_id = reader
$$;
