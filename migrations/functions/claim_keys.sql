-- Writes idempotency keys, which were not known, into slots, with the places of their messages; waits for transactions that
-- are writing the same keys. Returns the keys that were lost to them. In the order of slots and keys, so that concurrent
-- calls don't deadlock. Internal: see publish and enter_slot.
CREATE FUNCTION outbox.claim_keys(
    topic_id int, keys text[], partition_ids int[], offsets bigint[], slots smallint[], remembered interval
) RETURNS text[]
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    writing smallint;
    won text[];
    lost text[] := '{}';
BEGIN
    FOREACH writing IN ARRAY slots LOOP
        WITH written AS (
            INSERT INTO outbox.deduplication AS d (slot, topic_id, key, partition_id, "offset", expires_at)
            SELECT writing, claim_keys.topic_id, k.key, k.partition_id, k."offset", clock_timestamp() + remembered
            FROM unnest(keys, partition_ids, offsets) AS k (key, partition_id, "offset")
            ORDER BY k.key
            ON CONFLICT (slot, topic_id, key) DO UPDATE
            SET partition_id = excluded.partition_id, "offset" = excluded."offset", expires_at = excluded.expires_at
            WHERE d.expires_at <= clock_timestamp()
            RETURNING key
        )
        SELECT array_agg(key) INTO won FROM written;
        lost := lost || ARRAY(SELECT unnest(keys) EXCEPT SELECT unnest(won));
    END LOOP;
    IF lost <> '{}' AND cardinality(slots) > 1 THEN  -- lost in one slot, perhaps written in another
        DELETE FROM outbox.deduplication d
        USING unnest(keys, partition_ids, offsets) AS k (key, partition_id, "offset")
        WHERE d.slot = ANY (slots) AND d.topic_id = claim_keys.topic_id AND d.key = k.key AND k.key = ANY (lost)
          AND d.partition_id = k.partition_id AND d."offset" = k."offset";
    END IF;
    RETURN lost;
END $$;
