-- When the next tick of any schedule is, or was; NULL or infinity: none is to come. overdue: see publish_due.
CREATE FUNCTION outbox.next_tick_at(overdue boolean DEFAULT true) RETURNS timestamptz
LANGUAGE plpgsql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    due_after timestamptz := CASE WHEN overdue THEN '-infinity' ELSE clock_timestamp() - interval '5 seconds' END;
BEGIN
    RETURN (SELECT t.next_at FROM outbox.tick t WHERE t.next_at > due_after ORDER BY t.next_at LIMIT 1);
END $$;
