-- Stores a message that a worker publishes at due_at, or soon after it, in the caller's transaction. Returns its id in
-- outbox.scheduled. What publish would refuse is refused now: an undeclared topic (or it is declared now), a priority beyond 9.
-- ttl counts from its publication, and so does the window of its idempotency_key.
CREATE FUNCTION outbox.publish_later(
    topic text, payload json, due_at timestamptz, key text DEFAULT NULL, headers jsonb DEFAULT NULL, priority int DEFAULT 0,
    body bytea DEFAULT NULL, idempotency_key text DEFAULT NULL, ttl interval DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new_id bigint;
BEGIN
    IF due_at IS NULL OR NOT isfinite(due_at) OR ttl <= interval '0' THEN
        RAISE EXCEPTION 'a message for later needs a time, not %, and a ttl above 0 if any, not %', due_at, ttl
            USING ERRCODE = 'OB007';
    END IF;
    PERFORM outbox.route(publish_later.topic, publish_later.priority);
    INSERT INTO outbox.scheduled (topic, due_at, priority, key, headers, payload, body, ttl, idempotency_key)
    VALUES (publish_later.topic, publish_later.due_at, publish_later.priority, publish_later.key, publish_later.headers,
            publish_later.payload, publish_later.body, publish_later.ttl, publish_later.idempotency_key)
    RETURNING id INTO new_id;
    IF publish_later.due_at < clock_timestamp() + interval '10 seconds' THEN  -- later ones are found in time
        PERFORM outbox.wake(-1);
    END IF;
    RETURN new_id;
END $$;
