-- The newest dead letters of a subscription, or of all (NULL), that fit a filter, an object of any of "error_class", "place",
-- "reason", "key", "topic" (a pattern), "died_before", "died_after", "text" (a part of the last error's).
CREATE FUNCTION outbox.dead_letters(
    subscription text DEFAULT NULL, filter jsonb DEFAULT NULL, max_letters int DEFAULT 100
) RETURNS SETOF outbox.dead_letter
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    wanted jsonb := outbox.letter_filter(filter);
    reader int := CASE WHEN subscription IS NOT NULL THEN outbox.subscription_id(subscription) END;
BEGIN
    RETURN QUERY
    SELECT d.* FROM outbox.dead_letter d
    WHERE (reader IS NULL OR d.subscription_id = reader) AND outbox.letter_fits(d, wanted)
    ORDER BY d.died_at DESC, d.partition_id DESC, d."offset" DESC LIMIT max_letters;
END $$;
