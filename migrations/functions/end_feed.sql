-- A worker that read partitions of another log for a subscription ends in order: where it stands nobody has died.
CREATE FUNCTION outbox.end_feed(subscription text, partitions text[], offsets bigint[]) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
UPDATE outbox.source_position p SET begun = 0
FROM unnest(end_feed.partitions, end_feed.offsets) AS e (partition, "offset")
WHERE p.source = 'from:' || end_feed.subscription AND p.partition = e.partition AND p."offset" = e."offset"
$$;
