-- The history of a message's errors with one more (NULL: none): the first and the last nine are kept.
CREATE FUNCTION outbox.add_error(errors jsonb, error jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN error IS NULL THEN errors ELSE CASE WHEN jsonb_array_length(errors) >= 10 THEN errors - 1 ELSE errors END || jsonb_build_array(error) END;
