-- What a message of a subscription must stay in order with: the others of its key, if failures park the key (NULL: nothing),
-- or those of its partition (''). NULL for an unordered subscription.
CREATE FUNCTION outbox.lane_of(on_failure text, key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN on_failure = 'park' THEN key WHEN on_failure IS NOT NULL THEN '' END;
