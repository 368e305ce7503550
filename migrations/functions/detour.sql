-- Messages of another log that a subscription does not finish there: they become redeliveries (dead letters, if they have no delay)
-- of a topic of its own, [number] of whose partitions they belong to, in the order of the array. In an ordered subscription who has
-- one of its lane before it waits behind it. Takes the turns of the partitions. Internal: see move_feed.
CREATE FUNCTION outbox.detour(subscription text, topic text, messages json) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    reader outbox.subscription;
    way outbox.topic;
    dead record;
BEGIN
    SELECT * INTO reader FROM outbox.subscription s WHERE s.id = outbox.subscription_id(detour.subscription);
    SELECT * INTO STRICT way FROM outbox.topic t WHERE t.name = detour.topic;
    IF reader.on_failure IS NOT NULL THEN
        PERFORM outbox.take_turns(array_agg(reader.id), array_agg(way.homes[1 + (m ->> 'number')::int]))
        FROM json_array_elements(messages) AS m;
    END IF;
    WITH led AS MATERIALIZED (
        SELECT way.homes[1 + m.number] AS partition_id, nextval(way.sequences[1 + m.number]) AS "offset",
               outbox.lane_of(reader.on_failure, m.key) AS lane, to_timestamp(m.published_at) AS published_at,
               m.key, m.headers, m.payload, decode(m.body, 'base64') AS body, m.delay, m.reason, m.charged::int AS charge,
               outbox.add_error('[]', m.error || jsonb_build_object('attempt', 1, 'at', clock_timestamp())) AS errors
        FROM json_to_recordset(messages) AS m (
            number int, key text, headers jsonb, payload json, body text, published_at float8,
            delay float8, reason text, charged boolean, error jsonb)
    ), again AS (
        INSERT INTO outbox.redelivery (subscription_id, partition_id, "offset", attempt, due_at, lane,
                                       published_at, key, headers, payload, body, errors)
        SELECT reader.id, partition_id, "offset", 1 + charge,
               CASE WHEN outbox.is_next(reader.id, partition_id, lane, row_number() OVER (
                        PARTITION BY partition_id, lane ORDER BY "offset"))
                    THEN clock_timestamp() + make_interval(secs => delay) ELSE 'infinity' END,
               lane, published_at, key, headers, payload, body, errors
        FROM led WHERE delay IS NOT NULL
    )
    SELECT array_agg(reader.id) AS readers, array_agg(partition_id) AS partition_ids, array_agg("offset") AS offsets,
           array_agg(charge) AS attempts, array_agg(reason) AS reasons, array_agg(published_at) AS published_at,
           array_agg(key) AS keys, array_agg(headers) AS headers, array_agg(payload) AS payloads, array_agg(body) AS bodies,
           array_agg(errors) AS errors
    INTO dead
    FROM led WHERE delay IS NULL;
    PERFORM outbox.bury(dead.readers, dead.partition_ids, dead.offsets, dead.attempts, dead.reasons, dead.published_at,
                        dead.keys, dead.headers, dead.payloads, dead.bodies, dead.errors);
    IF NOT outbox.nobody_sleeps(way.id) THEN
        PERFORM outbox.wake(way.id);
    END IF;
END $$;
