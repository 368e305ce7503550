-- What a handler is told of a message's errors: all but the tracebacks, which are long; NULL: it had none. Internal: see take_due.
CREATE FUNCTION outbox.history_of(errors jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN errors <> '[]' THEN (
    SELECT jsonb_agg(e - 'traceback' ORDER BY nth) FROM jsonb_array_elements(errors) WITH ORDINALITY AS a (e, nth)
) END;
