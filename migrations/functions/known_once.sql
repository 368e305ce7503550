-- Which of these keys a consumer has done already, as far as that has committed: see once() and mark_once(). By (slot, consumer,
-- key), in the slots of the last seven days.
CREATE FUNCTION outbox.known_once(consumer text, keys text[]) RETURNS SETOF text
LANGUAGE plpgsql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
    live smallint[] := ARRAY(SELECT outbox.key_slot(clock_timestamp() - n * interval '2 days') FROM generate_series(-1, 4) AS n);
BEGIN
    RETURN QUERY
    SELECT DISTINCT i.key FROM outbox.inbox i
    WHERE i.slot = ANY (live) AND i.consumer = known_once.consumer AND i.key = ANY (known_once.keys)
      AND i.expires_at > clock_timestamp();
END $$;
