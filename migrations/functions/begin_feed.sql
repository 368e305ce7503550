-- A worker begins to read a partition of another log for a subscription: where, and how many died there before it, having got no
-- further. A partition that was never read begins at "first"; without one the row is NULL. Waits for whoever is just moving on there.
CREATE FUNCTION outbox.begin_feed(
    subscription text, partition text, first bigint DEFAULT NULL, OUT "offset" bigint, OUT deaths int
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    feed text := 'from:' || subscription;
BEGIN
    begin_feed."offset" := outbox.lock_source(feed, begin_feed.partition);
    IF begin_feed."offset" IS NULL AND first IS NOT NULL THEN
        PERFORM outbox.advance_source(feed, begin_feed.partition, NULL, first);
        begin_feed."offset" := first;
        deaths := 0;
        RETURN;
    END IF;
    UPDATE outbox.source_position p SET begun = least(p.begun + 1, 1000)
    WHERE p.source = feed AND p.partition = begin_feed.partition AND p."offset" = begin_feed."offset"
    RETURNING p.begun - 1 INTO deaths;
END $$;
