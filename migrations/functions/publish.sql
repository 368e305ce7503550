-- Appends one message to a topic in the caller's transaction, at any isolation level; one INSERT. Returns where it lies: its stable
-- id is 'partition_id-offset'. The order of the statements matters: xid, then offset, then row. priority: 0 to 9, the higher first.
-- ttl: how long it may wait for its delivery. body: raw bytes instead of a JSON payload. idempotency_key: stores nothing, and
-- returns the earlier message, if one was published to the topic with it within the topic's deduplication_window.
CREATE FUNCTION outbox.publish(
    topic text, payload json, key text DEFAULT NULL, headers jsonb DEFAULT NULL, priority int DEFAULT 0,
    body bytea DEFAULT NULL, idempotency_key text DEFAULT NULL, ttl interval DEFAULT NULL,
    OUT partition_id int, OUT "offset" bigint
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    topic_id int;
    home int;
    sequence regclass;
    slot smallint;
    remembered interval;
    guards int[];
    live smallint[];
    slots smallint[];
    xid xid8;
BEGIN
    FOR try IN 1..2 LOOP
        SELECT t.id, t.homes[t.place], t.sequences[t.place], outbox.slot(t.first_slot, t.slots, t.slot_width),
               t.deduplication_window, t.guards
        INTO topic_id, home, sequence, slot, remembered, guards
        FROM (SELECT t.*, 1 + least(publish.priority, t.max_priority) * t.partitions
                            + outbox.partition_number(publish.key, t.partitions) AS place
              FROM outbox.topic t
              WHERE t.name = publish.topic AND publish.priority BETWEEN 0 AND 9
              OFFSET 0) AS t;
        EXIT WHEN FOUND;
        PERFORM outbox.route(publish.topic, publish.priority);  -- declares it, or says what is wrong
    END LOOP;
    IF idempotency_key IS NOT NULL THEN
        SELECT e.live, e.writes INTO live, slots FROM outbox.enter_slot(0, remembered) AS e;
        SELECT known.partition_id, known."offset" INTO partition_id, "offset"
        FROM outbox.known_keys(topic_id, ARRAY[idempotency_key], live) AS known;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF guards IS NOT NULL THEN
        PERFORM outbox.require_room(publish.topic, guards, 1);
    END IF;
    xid := pg_current_xact_id();
    partition_id := home;
    "offset" := nextval(sequence);
    IF idempotency_key IS NOT NULL AND outbox.claim_keys(
        topic_id, ARRAY[idempotency_key], ARRAY[publish.partition_id], ARRAY[publish."offset"],
        slots, remembered) <> '{}' THEN  -- another transaction has just committed it
        SELECT known.partition_id, known."offset" INTO STRICT partition_id, "offset"
        FROM outbox.known_keys(topic_id, ARRAY[idempotency_key], live) AS known;
        RETURN;
    END IF;
    INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, key, headers, payload, body, expires_at)
    VALUES (slot, publish.partition_id, publish."offset", xid, clock_timestamp(),
            publish.key, publish.headers, publish.payload, publish.body, clock_timestamp() + publish.ttl);
    IF NOT outbox.nobody_sleeps(topic_id) THEN
        PERFORM outbox.wake(topic_id);
    END IF;
END $$;
