-- The partitions that a reader should look into: their log ends beyond its position, or a transaction that was open has ended; of
-- older generations all, if a newer one has news. None beyond "until", if it is given; without newcomers only those that the
-- position names; with a key only those that its messages are in. One sequence a partition. Internal: see read.
CREATE FUNCTION outbox.unread(pattern text, after jsonb, until jsonb, with_key text, newcomers boolean) RETURNS TABLE (
    partition_id int, topic text, number smallint, priority smallint, generation smallint, ended bigint, up_to bigint,
    first_slot smallint, last_slot smallint
)
LANGUAGE sql VOLATILE
AS $$
WITH readable AS (
    SELECT p.*, t.name AS topic, count(*) OVER (PARTITION BY p.topic_id, p.generation, p.priority) AS partitions
    FROM outbox.topic t
    JOIN outbox.partition p ON p.topic_id = t.id
    WHERE (t.name = unread.pattern OR unread.pattern ~ '[*#]' AND outbox.topic_matches(t.name, unread.pattern))
      AND p.backfill_for IS NULL
), looked AS (
    SELECT r.*, place."offset", log.ended, least(log.ended, bound.up_to) AS end_of_it, bound.up_to,
           least(log.ended, bound.up_to) <> place."offset" AND (bound.up_to IS NULL OR bound.up_to > place."offset")
           OR NOT place.open <@ ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot())) AS has_news
    FROM readable r
    CROSS JOIN LATERAL outbox.place_in(unread.after, r.id) AS place
    CROSS JOIN LATERAL (SELECT CASE WHEN unread.until IS NOT NULL
                                    THEN coalesce((unread.until -> r.id::text ->> 'offset')::bigint, 0) END AS up_to) AS bound
    CROSS JOIN LATERAL (SELECT outbox.log_end(r.sequence) AS ended OFFSET 0) AS log
    WHERE (unread.newcomers OR unread.after ? r.id::text)
      AND (unread.with_key IS NULL OR r.number = outbox.partition_number(unread.with_key, r.partitions::int))
), newest AS (
    SELECT l.*, max(l.generation) FILTER (WHERE l.has_news) OVER (PARTITION BY l.topic_id) AS newest_with_news
    FROM looked l
)
SELECT n.id, n.topic, n.number, n.priority, n.generation, n.ended, n.up_to, n.first_slot, n.last_slot
FROM newest n
WHERE n.has_news OR n.generation < n.newest_with_news
ORDER BY n.generation, random()
$$;
