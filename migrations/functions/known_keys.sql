-- What earlier publishes with these idempotency keys came to, as far as the slots show it. By (slot, topic_id, key). Internal:
-- see publish.
CREATE FUNCTION outbox.known_keys(topic_id int, keys text[], live smallint[]) RETURNS TABLE (
    key text, partition_id int, "offset" bigint
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
    IF cardinality(keys) = 1 THEN
        RETURN QUERY SELECT keys[1], k.* FROM outbox.known_key(known_keys.topic_id, keys[1], live) AS k;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT DISTINCT ON (d.key) d.key, d.partition_id, d."offset"
    FROM outbox.deduplication d
    WHERE d.slot = ANY (live) AND d.topic_id = known_keys.topic_id AND d.key = ANY (keys) AND d.expires_at > clock_timestamp()
    ORDER BY d.key, d.expires_at DESC;
END $$;
