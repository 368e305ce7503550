-- Publishes a message of a schedule for each of the times. Returns how many; what can't be published waits in outbox.scheduled.
-- Internal: see tick_schedule, run_schedule.
CREATE FUNCTION outbox.publish_ticks(schedule outbox.schedule, ticks timestamptz[]) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    ids bigint[] := '{}';
    new_id bigint;
    tick timestamptz;
BEGIN
    FOREACH tick IN ARRAY ticks LOOP
        INSERT INTO outbox.scheduled (topic, due_at, priority, key, headers, payload, body, ttl, schedule)
        VALUES (schedule.topic, clock_timestamp(), schedule.priority, schedule.key,
                coalesce(schedule.headers, '{}') || jsonb_build_object(
                    'schedule', schedule.name,
                    'scheduled-for', regexp_replace(
                        to_char(tick AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '\.?0+$', '') || '+00:00'),
                schedule.payload, schedule.body, schedule.ttl, schedule.name)
        RETURNING id INTO new_id;
        ids := ids || new_id;
    END LOOP;
    RETURN CASE WHEN ids = '{}' THEN 0 ELSE outbox.publish_scheduled(ids) END;
END $$;
