-- Turns dead letters into messages of a topic: with their content, key and headers, and headers that say what became of them. One
-- that this subscription buried before (it comes back by a circle of topics) stays a dead letter. Internal: see bury.
CREATE FUNCTION outbox.publish_dead_letters(
    topic text, priority int, subscription_ids int[], partition_ids int[], offsets bigint[]
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    letters record;
BEGIN
    WITH moved AS (
        DELETE FROM outbox.dead_letter d
        USING unnest(subscription_ids, partition_ids, publish_dead_letters.offsets)
                  AS u (subscription_id, partition_id, "offset"),
              outbox.subscription s
        WHERE (d.subscription_id, d.partition_id, d."offset") = (u.subscription_id, u.partition_id, u."offset")
          AND s.id = d.subscription_id AND d.headers ->> 'dead-letter-subscription' IS DISTINCT FROM s.name
        RETURNING d.*, s.name AS subscription
    ), told AS (
        SELECT m.*, CASE jsonb_typeof(m.headers) WHEN 'object' THEN m.headers ELSE '{}' END || jsonb_build_object(
                   'dead-letter-subscription', m.subscription,
                   'dead-letter-topic', t.name,
                   'dead-letter-id', m.partition_id || '-' || m."offset",
                   'dead-letter-reason', m.reason,
                   'dead-letter-error', left(concat_ws(': ', nullif(m.error_class, ''), m.errors -> -1 ->> 'text'), 1000),
                   'dead-letter-attempts', m.attempt::text) AS told
        FROM moved m
        JOIN outbox.partition p ON p.id = m.partition_id
        JOIN outbox.topic t ON t.id = p.topic_id
        ORDER BY m.subscription_id, m.partition_id, m."offset"
    )
    SELECT array_agg(payload) AS payloads, array_agg(body) AS bodies, array_agg(key) AS keys, array_agg(told) AS headers
    INTO letters FROM told;
    PERFORM outbox.publish_many(publish_dead_letters.topic, letters.payloads, keys => letters.keys, headers => letters.headers,
                                priority => publish_dead_letters.priority, bodies => letters.bodies);
END $$;
