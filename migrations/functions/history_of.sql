-- What a handler is told of a message's errors: without tracebacks, and 500 characters of each text, since a pull brings many
-- messages. NULL: it had none. Internal: see take_due.
CREATE FUNCTION outbox.history_of(errors jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN errors <> '[]' THEN (
    SELECT jsonb_agg(jsonb_set(e - 'traceback', '{text}', to_jsonb(left(coalesce(e ->> 'text', ''), 500))) ORDER BY nth)
    FROM jsonb_array_elements(errors) WITH ORDINALITY AS a (e, nth)
    WHERE jsonb_typeof(e) = 'object'
) END;
