-- Keeps messages that are given up on: [i] of each array is one; an array is NULL where none has such a thing. They become dead
-- letters, or messages of their subscription's dead-letter topic if it has one. If that can't be published to, or a message
-- came from there, dead letters are kept all the same. In the caller's transaction. Internal: see fail, hand_back, take.
CREATE FUNCTION outbox.bury(
    subscription_ids int[], partition_ids int[], offsets bigint[], attempts int[], reasons text[],
    published_at timestamptz[], keys text[], headers jsonb[], payloads json[], bodies bytea[], errors jsonb[]
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    pile record;
BEGIN
    IF coalesce(cardinality(bury.offsets), 0) = 0 THEN
        RETURN;
    END IF;
    INSERT INTO outbox.dead_letter AS d (subscription_id, partition_id, "offset", attempt, reason,
                                         published_at, key, headers, payload, body, errors)
    SELECT DISTINCT ON (subscription_id, partition_id, "offset")
           subscription_id, partition_id, "offset", coalesce(attempt, 0), reason,
           published_at, key, headers, payload, body, coalesce(errors, '[]')
    FROM unnest(subscription_ids, partition_ids, bury.offsets, attempts, reasons, bury.published_at, keys, bury.headers, payloads,
                bodies, bury.errors)
         AS u (subscription_id, partition_id, "offset", attempt, reason, published_at, key, headers, payload, body, errors)
    ON CONFLICT (subscription_id, partition_id, "offset") DO UPDATE
    SET attempt = excluded.attempt, reason = excluded.reason, errors = excluded.errors, died_at = excluded.died_at,
        payload = excluded.payload, body = excluded.body;

    FOR pile IN
        SELECT s.dead_letter_topic AS topic, p.priority, array_agg(u.subscription_id) AS subscription_ids,
               array_agg(u.partition_id) AS partition_ids, array_agg(u."offset") AS offsets
        FROM unnest(subscription_ids, partition_ids, bury.offsets) AS u (subscription_id, partition_id, "offset")
        JOIN outbox.subscription s ON s.id = u.subscription_id
        JOIN outbox.partition p ON p.id = u.partition_id
        JOIN outbox.topic t ON t.id = p.topic_id
        WHERE t.name <> s.dead_letter_topic
        GROUP BY s.dead_letter_topic, p.priority
        ORDER BY s.dead_letter_topic, p.priority
    LOOP
        BEGIN
            PERFORM outbox.publish_dead_letters(pile.topic, pile.priority, pile.subscription_ids, pile.partition_ids,
                                                pile.offsets);
        EXCEPTION WHEN OTHERS THEN  -- whatever is wrong with that topic: the settlement goes on, and the letters stay
            RAISE WARNING 'dead letters are kept, since topic "%" can''t be published to: %', pile.topic, SQLERRM;
        END;
    END LOOP;
END $$;
