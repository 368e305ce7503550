-- The slot of outbox.result that is written at a time, for a result that lives so long.
CREATE FUNCTION outbox.result_slot(at timestamptz, ttl interval) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN ttl <= interval '1 hour' THEN (floor(extract(epoch FROM at) / 600)::bigint % 8)::smallint
            ELSE (8 + floor(extract(epoch FROM at) / 345600)::bigint % 8)::smallint END;
