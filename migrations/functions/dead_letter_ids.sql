-- Where the dead letters of a subscription lie that fit a filter (see dead_letters), in the order of partitions and offsets, from
-- beyond (after_partition_id, after_offset) on: what is redriven or purged in portions is gone through once.
CREATE FUNCTION outbox.dead_letter_ids(
    subscription text, filter jsonb DEFAULT NULL, max_letters int DEFAULT NULL,
    after_partition_id int DEFAULT 0, after_offset bigint DEFAULT 0
) RETURNS TABLE (partition_id int, "offset" bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    wanted jsonb := outbox.letter_filter(filter);
    reader int := outbox.subscription_id(subscription);
BEGIN
    RETURN QUERY
    SELECT d.partition_id, d."offset" FROM outbox.dead_letter d
    WHERE d.subscription_id = reader AND (d.partition_id, d."offset") > (after_partition_id, after_offset)
      AND outbox.letter_fits(d, wanted)
    ORDER BY d.partition_id, d."offset" LIMIT max_letters;
END $$;
