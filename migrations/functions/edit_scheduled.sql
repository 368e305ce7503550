-- Changes a message that is to come, in the caller's transaction: what is not NULL. A payload takes the place of a body, and the
-- other way round. False: there is none, it was published already; waits for a transaction that is just publishing it.
CREATE FUNCTION outbox.edit_scheduled(
    id bigint, due_at timestamptz DEFAULT NULL, payload json DEFAULT NULL, key text DEFAULT NULL, headers jsonb DEFAULT NULL,
    priority int DEFAULT NULL, body bytea DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF edit_scheduled.payload IS NOT NULL AND edit_scheduled.body IS NOT NULL THEN
        RAISE EXCEPTION 'a message has a payload or a body, not both' USING ERRCODE = 'OB007';
    END IF;
    UPDATE outbox.scheduled s
    SET due_at = coalesce(edit_scheduled.due_at, s.due_at),
        payload = CASE WHEN edit_scheduled.body IS NULL THEN coalesce(edit_scheduled.payload, s.payload) END,
        body = CASE WHEN edit_scheduled.payload IS NULL THEN coalesce(edit_scheduled.body, s.body) END,
        key = coalesce(edit_scheduled.key, s.key),
        headers = coalesce(edit_scheduled.headers, s.headers),
        priority = coalesce(edit_scheduled.priority, s.priority),
        attempts = 0, error = NULL
    WHERE s.id = edit_scheduled.id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF edit_scheduled.due_at < clock_timestamp() + interval '10 seconds' THEN
        PERFORM outbox.wake(-1);
    END IF;
    RETURN true;
EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION 'message % can''t be changed so: %', edit_scheduled.id, SQLERRM USING ERRCODE = 'OB007';
END $$;
