-- A place as a reader's position holds it: see place_in. Internal.
CREATE FUNCTION outbox.place_of("offset" bigint, open xid8[], floor bigint[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN CASE WHEN open = '{}' THEN jsonb_build_object('offset', "offset")
            ELSE jsonb_build_object('offset', "offset", 'open', open::text[]::bigint[], 'floor', floor) END;
