-- Publishes messages of outbox.scheduled whose time has come, the oldest first, at most max_messages, in one transaction with
-- their deletion: exactly once, however many call it (those that another is publishing are skipped). overdue = false looks only
-- at those that came due in the last 5 seconds, so that dead rows of older ones are not walked at every look.
-- Returns how many were published, and when to look again: at once, if there may be more; NULL: nothing is to come.
CREATE FUNCTION outbox.publish_due(
    max_messages int DEFAULT 100, overdue boolean DEFAULT true, now timestamptz DEFAULT NULL,
    OUT published bigint, OUT next_due_at timestamptz
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    due_before timestamptz := coalesce(publish_due.now, clock_timestamp());
    due_after timestamptz := CASE WHEN overdue THEN '-infinity' ELSE due_before - interval '5 seconds' END;
    ids bigint[];
BEGIN
    IF max_messages IS NULL OR max_messages NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'max_messages must be 1 to 10000, not %', max_messages USING ERRCODE = 'OB007';
    END IF;
    ids := ARRAY(SELECT s.id FROM outbox.scheduled s WHERE s.due_at > due_after AND s.due_at <= due_before
                 ORDER BY s.due_at, s.id LIMIT max_messages FOR UPDATE SKIP LOCKED);
    published := CASE WHEN ids = '{}' THEN 0 ELSE outbox.publish_scheduled(ids) END;
    IF cardinality(ids) = max_messages THEN
        next_due_at := due_before;
    ELSE
        SELECT s.due_at INTO next_due_at FROM outbox.scheduled s WHERE s.due_at > due_before ORDER BY s.due_at LIMIT 1;
    END IF;
END $$;
