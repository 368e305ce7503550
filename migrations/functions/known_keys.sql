-- What earlier publishes with these idempotency keys came to, as far as the slots show it. By (slot, topic_id, key); planned once,
-- since to plan sixteen partitions costs several times the look-up. Internal: see publish and reply_to.
CREATE FUNCTION outbox.known_keys(topic_id int, keys text[], live smallint[]) RETURNS TABLE (
    key text, partition_id int, "offset" bigint
)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT DISTINCT ON (d.key) d.key, d.partition_id, d."offset"
    FROM outbox.deduplication d
    WHERE d.slot = ANY (live) AND d.topic_id = known_keys.topic_id AND d.key = ANY (keys) AND d.expires_at > clock_timestamp()
    ORDER BY d.key, d.expires_at DESC;
END $$;
