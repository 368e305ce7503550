-- Creates a schedule, or brings it up to date; returns whether that changed anything. Either cron or every is set. next_at: its
-- first tick if it is new, or its times have changed; workers compute those that follow. NULL: an "every" ticks first after one
-- interval. One that is paused stays so. Ticks that an earlier version of it missed are gone.
CREATE FUNCTION outbox.declare_schedule(
    name text, topic text, payload json, cron text DEFAULT NULL, every interval DEFAULT NULL, timezone text DEFAULT 'UTC',
    missed text DEFAULT 'one', key text DEFAULT NULL, headers jsonb DEFAULT NULL, priority int DEFAULT 0, body bytea DEFAULT NULL,
    ttl interval DEFAULT NULL, next_at timestamptz DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    known outbox.schedule;
    wanted outbox.schedule;
    starts_at timestamptz := coalesce(next_at, clock_timestamp() + every);
    new_id int;
BEGIN
    SELECT s.* INTO known FROM outbox.schedule s WHERE s.name = declare_schedule.name;
    wanted := known;
    wanted.topic := topic; wanted.payload := payload; wanted.cron := cron; wanted.every := every; wanted.timezone := timezone;
    wanted.missed := missed; wanted.key := key; wanted.headers := headers; wanted.priority := priority; wanted.body := body;
    wanted.ttl := ttl;
    IF known.id IS NOT NULL AND known::text = wanted::text THEN
        RETURN false;
    END IF;
    IF starts_at IS NULL THEN
        RAISE EXCEPTION 'schedule "%" needs its first tick: next_at', declare_schedule.name
            USING ERRCODE = 'OB007', HINT = 'Workers compute those that follow; Outbox.schedule() computes the first, too.';
    END IF;
    PERFORM outbox.route(declare_schedule.topic, declare_schedule.priority);
    INSERT INTO outbox.schedule (name, cron, every, timezone, topic, priority, key, headers, payload, body, ttl, missed)
    VALUES (declare_schedule.name, declare_schedule.cron, declare_schedule.every, declare_schedule.timezone,
            declare_schedule.topic, declare_schedule.priority, declare_schedule.key, declare_schedule.headers,
            declare_schedule.payload, declare_schedule.body, declare_schedule.ttl, declare_schedule.missed)
    ON CONFLICT DO NOTHING RETURNING id INTO new_id;
    IF new_id IS NOT NULL THEN
        PERFORM outbox.move_schedule(new_id, starts_at);
        RETURN true;
    END IF;
    SELECT s.* INTO known FROM outbox.schedule s WHERE s.name = declare_schedule.name FOR UPDATE;
    UPDATE outbox.schedule s
    SET (cron, every, timezone, topic, priority, key, headers, payload, body, ttl, missed)
      = ROW (wanted.cron, wanted.every, wanted.timezone, wanted.topic, wanted.priority, wanted.key, wanted.headers,
             wanted.payload, wanted.body, wanted.ttl, wanted.missed),
        revision = s.revision + 1, error = NULL
    WHERE s.id = known.id;
    IF (known.cron, known.every, known.timezone) IS DISTINCT FROM (wanted.cron, wanted.every, wanted.timezone)
       AND known.paused_at IS NULL THEN
        PERFORM outbox.move_schedule(known.id, starts_at);
    END IF;
    RETURN true;
EXCEPTION WHEN check_violation OR not_null_violation THEN
    RAISE EXCEPTION 'schedule "%" can''t be declared so: %', declare_schedule.name, SQLERRM USING ERRCODE = 'OB007';
END $$;
