-- Where a publish to a topic goes: the sub-log of a priority (capped at the topic's highest), its partitions by number,
-- the slot that is written now, and for how long idempotency keys are remembered. Declares an unknown topic, unless outbox.declare_topics is off (OB006).
CREATE FUNCTION outbox.route(
    topic text, priority int, OUT topic_id int, OUT partition_ids int[], OUT sequences regclass[], OUT slot smallint,
    OUT remembered interval, OUT guards int[]
)
LANGUAGE plpgsql
AS $$
BEGIN
    IF route.priority IS NULL OR route.priority NOT BETWEEN 0 AND 9 THEN
        RAISE EXCEPTION 'priority % is not between 0 and 9', route.priority USING ERRCODE = 'OB007';
    END IF;
    FOR try IN 1..2 LOOP
        SELECT t.id, t.homes[t.before + 1 : t.before + t.partitions], t.sequences[t.before + 1 : t.before + t.partitions],
               outbox.slot(t.first_slot, t.slots, t.slot_width), t.deduplication_window, t.guards
        INTO topic_id, partition_ids, sequences, slot, remembered, guards
        FROM (SELECT t.*, least(route.priority, t.max_priority) * t.partitions AS before
              FROM outbox.topic t WHERE t.name = route.topic) AS t;
        EXIT WHEN FOUND;
        IF current_setting('outbox.declare_topics', true) = 'off' THEN
            RAISE EXCEPTION 'topic "%" is not declared', route.topic
                USING ERRCODE = 'OB006', HINT = format('SELECT outbox.declare_topic(%L);', route.topic);
        END IF;
        PERFORM outbox.declare_topic(route.topic);
    END LOOP;
END $$;
