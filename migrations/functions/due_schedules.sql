-- The schedules whose next tick has come, the oldest first, with what it takes to compute the ticks that follow, and the
-- database's clock. overdue: see publish_due. Locks nothing: tick_schedule looks whether another was first.
CREATE FUNCTION outbox.due_schedules(overdue boolean DEFAULT true, now timestamptz DEFAULT NULL) RETURNS TABLE (
    name text, cron text, every interval, timezone text, missed text, revision int, next_at timestamptz, looked_at timestamptz
)
LANGUAGE plpgsql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    due_before timestamptz := coalesce(due_schedules.now, clock_timestamp());
    due_after timestamptz := CASE WHEN overdue THEN '-infinity' ELSE due_before - interval '5 seconds' END;
BEGIN
    RETURN QUERY
    SELECT s.name, s.cron, s.every, s.timezone, s.missed, s.revision, t.next_at, due_before
    FROM (SELECT * FROM outbox.tick t WHERE t.next_at > due_after AND t.next_at <= due_before
          ORDER BY t.next_at LIMIT 100) AS t
    JOIN outbox.schedule s ON s.id = t.schedule_id
    ORDER BY t.next_at;
END $$;
