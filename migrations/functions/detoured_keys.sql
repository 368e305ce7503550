-- The lanes of an ordered subscription in which messages wait that took a detour from the log that feeds it, of one partition of its
-- own topic: keys, or an empty text for all of the partition. By redelivery_lane.
CREATE FUNCTION outbox.detoured_keys(subscription text, topic text, number int) RETURNS SETOF text
LANGUAGE sql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
SELECT DISTINCT r.lane
FROM outbox.redelivery r
WHERE r.subscription_id = outbox.subscription_id(detoured_keys.subscription)
  AND r.partition_id = (SELECT t.homes[1 + detoured_keys.number] FROM outbox.topic t WHERE t.name = detoured_keys.topic)
  AND r.lane IS NOT NULL
$$;
