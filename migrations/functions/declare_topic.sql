-- Creates a topic, its partitions and their sequences, and a cursor at its start for every subscription that has a
-- matching pattern, and tells the workers. Returns its id. Declaring it again the same way changes nothing, another way is
-- OB007; but deduplication_window (28 days at most; NULL: as it is, or 7 days) and compact (NULL: as it is, or false) may change.
-- Runs in the caller's transaction; a concurrent declaration of the same topic waits for it.
CREATE FUNCTION outbox.declare_topic(
    name text, partitions int DEFAULT 1, max_priority int DEFAULT 0, retention text DEFAULT 'standard',
    deduplication_window interval DEFAULT NULL, compact boolean DEFAULT NULL
) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    declared outbox.topic;
    new_id int;
BEGIN
    IF (declare_topic.partitions BETWEEN 1 AND 1024 AND declare_topic.max_priority BETWEEN 0 AND 9
        AND coalesce(declare_topic.deduplication_window, '7 days') BETWEEN interval '1 second' AND interval '28 days') IS NOT TRUE THEN
        RAISE EXCEPTION 'topic "%" can''t have % partitions, max_priority % and deduplication_window %',
            declare_topic.name, declare_topic.partitions, declare_topic.max_priority, declare_topic.deduplication_window
            USING ERRCODE = 'OB007', HINT = 'Partitions are 1 to 1024, max_priority 0 to 9, the window 1 second to 28 days.';
    END IF;
    INSERT INTO outbox.topic (name, partitions, max_priority, retention, deduplication_window, compact)
    VALUES (declare_topic.name, declare_topic.partitions, declare_topic.max_priority, declare_topic.retention,
            coalesce(declare_topic.deduplication_window, interval '7 days'), coalesce(declare_topic.compact, false))
    ON CONFLICT DO NOTHING RETURNING id INTO new_id;
    IF new_id IS NULL THEN
        SELECT * INTO declared FROM outbox.topic t WHERE t.name = declare_topic.name;
        IF (declared.partitions, declared.max_priority, declared.retention)
           <> (declare_topic.partitions, declare_topic.max_priority, declare_topic.retention) THEN
            RAISE EXCEPTION 'topic "%" exists with % partitions, max_priority % and retention "%"',
                name, declared.partitions, declared.max_priority, declared.retention
                USING ERRCODE = 'OB007', HINT = 'Declare it as it is, or change it with outbox.alter_topic().';
        END IF;
        IF declared.deduplication_window <> declare_topic.deduplication_window THEN
            UPDATE outbox.topic t SET deduplication_window = declare_topic.deduplication_window WHERE t.id = declared.id;
        END IF;
        IF declared.compact <> declare_topic.compact THEN
            UPDATE outbox.topic t SET compact = declare_topic.compact WHERE t.id = declared.id;
        END IF;
        RETURN declared.id;
    END IF;

    SELECT * INTO declared FROM outbox.topic t WHERE t.id = new_id;
    PERFORM outbox.create_partitions(declared);
    UPDATE outbox.topic t SET guards = outbox.guards_of(t.name) WHERE t.id = new_id AND outbox.guards_of(t.name) IS NOT NULL;
    RETURN new_id;
END $$;
