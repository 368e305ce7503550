-- One row of define, but for its new cursors. Bindings come before others go, so that cursors stay where both match. Internal.
CREATE FUNCTION outbox.define_one(wanted jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    reader int;
BEGIN
    IF wanted ? 'remove' THEN
        PERFORM outbox.unsubscribe(wanted ->> 'name', coalesce((wanted ->> 'force')::boolean, false));
        RETURN;
    END IF;
    PERFORM outbox.parse_start(wanted ->> 'start') WHERE wanted ->> 'start' IS NOT NULL;
    IF wanted ->> 'on_failure' IS NOT NULL THEN  -- one that was fair can't be ordered before
        UPDATE outbox.subscription s SET fair = false WHERE s.name = wanted ->> 'name' AND s.fair;
    END IF;
    reader := outbox.subscribe(
        wanted ->> 'name', wanted ->> 'guarantee', (wanted ->> 'max_attempts')::int, wanted ->> 'on_failure');
    PERFORM outbox.configure(wanted ->> 'name', wanted -> 'settings');
    PERFORM outbox.check_filter(b ->> 'filter') FROM jsonb_array_elements(wanted -> 'bind') AS b;
    INSERT INTO outbox.binding (subscription_id, pattern, headers, match, filter, alternate)
    SELECT reader, b.pattern, nullif(b.headers, '{}'), coalesce(b.match, 'all'), b.filter, coalesce(b.alternate, false)
    FROM jsonb_to_recordset(wanted -> 'bind') AS b (pattern text, headers jsonb, match text, filter text, alternate boolean)
    ON CONFLICT DO NOTHING;
    PERFORM outbox.unbind(wanted ->> 'name', b.pattern, b.headers, coalesce(b.match, 'all'), b.filter,
                          coalesce(b.alternate, false))
    FROM jsonb_to_recordset(wanted -> 'unbind') AS b (pattern text, headers jsonb, match text, filter text, alternate boolean);
END $$;
