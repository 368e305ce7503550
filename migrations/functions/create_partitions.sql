-- Creates the partitions of a topic's generation, of every priority, and cursors at their start for the subscriptions that read
-- the topic. Internal: see declare_topic and alter_topic.
CREATE FUNCTION outbox.create_partitions(topic outbox.topic) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM outbox.create_partition(topic.id, number, priority, topic.generation, topic.retention)
    FROM generate_series(0, topic.partitions - 1) AS number, generate_series(0, topic.max_priority) AS priority;
    PERFORM outbox.note_homes(topic.id);
    PERFORM outbox.adopt(s.id, false) FROM outbox.subscription s
    WHERE EXISTS (SELECT FROM outbox.binding b
                  WHERE b.subscription_id = s.id AND outbox.topic_matches(topic.name, b.pattern));
    IF current_setting('outbox.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('outbox', topic.id::text);
    END IF;
END $$;
