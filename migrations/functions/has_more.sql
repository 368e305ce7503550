-- Is there something that an ordered subscription may pull now? A pull that only parked messages returns none, and yet there may be
-- more. Reads one position a partition. See pull.
CREATE FUNCTION outbox.has_more(subscription text) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM outbox.subscription s
        CROSS JOIN LATERAL outbox.news(s.id) AS n
        WHERE s.name = has_more.subscription AND n.ended > n."offset" AND outbox.is_in_order(s.id, n.partition_id, s.on_failure));
END $$;
