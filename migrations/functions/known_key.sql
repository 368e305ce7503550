-- What an earlier publish with this idempotency key came to, as far as the slots show it. By (slot, topic_id, key), slot by slot:
-- with arrays Postgres 15 may walk all keys of the topic. Planned once, since to plan sixteen partitions costs several times the
-- look-up. Internal: see known_keys and reply_to.
CREATE FUNCTION outbox.known_key(topic_id int, key text, live smallint[]) RETURNS TABLE (partition_id int, "offset" bigint)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT k.partition_id, k."offset"
    FROM unnest(live) AS l (slot)
    CROSS JOIN LATERAL (
        SELECT d.partition_id, d."offset", d.expires_at
        FROM outbox.deduplication d
        WHERE d.slot = l.slot AND d.topic_id = known_key.topic_id AND d.key = known_key.key
          AND d.expires_at > clock_timestamp()
        OFFSET 0
    ) AS k
    ORDER BY k.expires_at DESC
    LIMIT 1;
END $$;
