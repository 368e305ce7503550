-- Copies what a publish must know of a topic's partitions and of its retention class into the topic's row. Who changes the class
-- waits until this commits, and sees it. Internal: see create_partitions.
CREATE FUNCTION outbox.note_homes(topic_id int) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM FROM outbox.retention r
    WHERE r.name = (SELECT t.retention FROM outbox.topic t WHERE t.id = note_homes.topic_id)
    FOR SHARE;
    UPDATE outbox.topic t
    SET homes = written.homes, sequences = written.sequences, first_slot = r.first_slot, slots = r.slots, slot_width = r.slot_width
    FROM outbox.retention r
    CROSS JOIN (SELECT array_agg(p.id ORDER BY p.priority, p.number) AS homes,
                       array_agg(p.sequence ORDER BY p.priority, p.number) AS sequences
                FROM outbox.partition p JOIN outbox.topic t ON t.id = p.topic_id AND t.generation = p.generation
                WHERE t.id = note_homes.topic_id) AS written
    WHERE t.id = note_homes.topic_id AND r.name = t.retention;
END $$;
