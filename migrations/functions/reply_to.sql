-- The reply to a request: the message of the topic that was published with the correlation id as its idempotency key and as its
-- header "correlation-id"; no row while there is none. By exact keys of deduplication and of the log; locks and writes nothing.
-- Whoever knows the id may read the reply: an id must not be guessable.
CREATE FUNCTION outbox.reply_to(topic text, correlation_id text) RETURNS TABLE (
    partition int, priority int, partition_id int, "offset" bigint, published_at timestamptz, key text, headers jsonb,
    payload json, body bytea
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    asked int;
    live smallint[];
    found_in int;
    found_at bigint;
BEGIN
    SELECT t.id, ARRAY(
        SELECT ((outbox.key_slot(clock_timestamp()) + 16 - back) % 16)::smallint
        FROM generate_series(-1, least(ceil(extract(epoch FROM t.deduplication_window) / 172800)::int, 15)) AS back)
    INTO asked, live
    FROM outbox.topic t WHERE t.name = reply_to.topic;
    SELECT known.partition_id, known."offset" INTO found_in, found_at
    FROM outbox.known_key(asked, reply_to.correlation_id, live) AS known;
    IF FOUND THEN  -- in a later snapshot than its key, so it is there
        RETURN QUERY
        SELECT p.number::int, p.priority::int, m.partition_id, m."offset", m.published_at, m.key, m.headers, m.payload, m.body
        FROM outbox.messages(found_in, found_at, found_at) AS m
        JOIN outbox.partition p ON p.id = m.partition_id
        WHERE m.headers ->> 'correlation-id' = reply_to.correlation_id;
    END IF;
END $$;
