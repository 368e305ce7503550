-- Appends messages to a topic in the caller's transaction, in the order of the arrays; one INSERT. Returns how many were
-- stored. Arrays are NULL (none has one) or as long as the messages are; a message has a payload or a body; ttls are seconds. Those
-- whose idempotency key is known, or comes a second time, are not stored.
CREATE FUNCTION outbox.publish_many(
    topic text, payloads json[], keys text[] DEFAULT NULL, headers jsonb[] DEFAULT NULL, priority int DEFAULT 0,
    bodies bytea[] DEFAULT NULL, idempotency_keys text[] DEFAULT NULL, ttls float8[] DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    route record;
    messages int := greatest(cardinality(payloads), cardinality(bodies), 0);
    published bigint;
BEGIN
    IF coalesce(cardinality(keys), messages) <> messages OR coalesce(cardinality(publish_many.headers), messages) <> messages
       OR coalesce(cardinality(payloads), messages) <> messages
       OR coalesce(cardinality(idempotency_keys), messages) <> messages OR coalesce(cardinality(ttls), messages) <> messages THEN
        RAISE EXCEPTION 'publish_many got % messages, % keys, % headers, % idempotency keys and % ttls: the arrays must be of one length',
            messages, cardinality(keys), cardinality(publish_many.headers), cardinality(idempotency_keys), cardinality(ttls)
            USING ERRCODE = 'OB007';
    END IF;
    IF messages = 0 THEN
        RETURN 0;
    END IF;
    SELECT * INTO route FROM outbox.route(publish_many.topic, publish_many.priority);
    IF route.guards IS NOT NULL THEN
        PERFORM outbox.require_room(publish_many.topic, route.guards, messages - CASE WHEN idempotency_keys IS NULL THEN 0 ELSE (
            SELECT count(*)::int FROM outbox.known_keys(
                route.topic_id, idempotency_keys, (SELECT e.live FROM outbox.enter_slot(0, route.remembered) AS e))) END);
    END IF;
    IF idempotency_keys IS NOT NULL THEN
        published := outbox.publish_unique(route.topic_id, route.partition_ids, route.sequences, route.slot, route.remembered,
                                           payloads, keys, publish_many.headers, bodies, idempotency_keys, ttls);
    ELSE
        PERFORM pg_current_xact_id();
        INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, key, headers, payload, body, expires_at)
        SELECT route.slot, route.partition_ids[m.place], nextval(route.sequences[m.place]), pg_current_xact_id(),
               clock_timestamp(), m.key, m.headers, m.payload, m.body, clock_timestamp() + make_interval(secs => m.ttl)
        FROM (SELECT 1 + outbox.partition_number(u.key, cardinality(route.partition_ids)) AS place, u.*
              FROM unnest(payloads, keys, publish_many.headers, bodies, ttls) AS u (payload, key, headers, body, ttl)
              OFFSET 0) AS m;
        GET DIAGNOSTICS published = ROW_COUNT;
    END IF;
    PERFORM outbox.wake(route.topic_id);
    RETURN published;
END $$;
