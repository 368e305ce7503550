-- Creates one sub-log of a topic with its sequence. Internal: see declare_topic.
CREATE FUNCTION outbox.create_partition(topic_id int, number int, priority int, generation int, retention text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    new_id int := nextval(pg_get_serial_sequence('outbox.partition', 'id'));
BEGIN
    EXECUTE format('CREATE SEQUENCE outbox.%I AS bigint CACHE 1', 'partition_' || new_id || '_offset');
    INSERT INTO outbox.partition (id, topic_id, number, priority, generation, retention, sequence) OVERRIDING SYSTEM VALUE
    VALUES (new_id, topic_id, number, priority, generation, retention,
            format('outbox.%I', 'partition_' || new_id || '_offset')::regclass);
END $$;
