-- Creates one sub-log of a topic with its sequence, and returns its id. Internal: see declare_topic, alter_topic and backfill.
CREATE FUNCTION outbox.create_partition(
    topic_id int, number int, priority int, generation int, retention text, backfill_for int DEFAULT NULL
) RETURNS int
LANGUAGE plpgsql
AS $$
DECLARE
    new_id int := nextval(pg_get_serial_sequence('outbox.partition', 'id'));
BEGIN
    EXECUTE format('CREATE SEQUENCE outbox.%I AS bigint CACHE 1', 'partition_' || new_id || '_offset');
    INSERT INTO outbox.partition (id, topic_id, number, priority, generation, retention, first_slot, last_slot, backfill_for, sequence)
    OVERRIDING SYSTEM VALUE
    SELECT new_id, create_partition.topic_id, create_partition.number, create_partition.priority, create_partition.generation,
           r.name, r.first_slot, r.first_slot + r.slots - 1, create_partition.backfill_for,
           format('outbox.%I', 'partition_' || new_id || '_offset')::regclass
    FROM outbox.retention r WHERE r.name = create_partition.retention;
    RETURN new_id;
END $$;
