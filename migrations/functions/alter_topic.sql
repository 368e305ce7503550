-- Gives a topic another number of partitions, priorities, or retention class (NULL: as it is). Its next messages go to a new
-- generation of partitions, which a subscription reads when it has read all of those before: order per key is kept. Transactions
-- that are under way may still write the old ones. Returns false if nothing changes. Runs in the caller's transaction.
CREATE FUNCTION outbox.alter_topic(
    name text, partitions int DEFAULT NULL, max_priority int DEFAULT NULL, retention text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old outbox.topic;
    new outbox.topic;
BEGIN
    SELECT * INTO old FROM outbox.topic t WHERE t.name = alter_topic.name FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'topic "%" does not exist', alter_topic.name
            USING ERRCODE = 'OB006', HINT = 'Create it with outbox.declare_topic().';
    ELSIF alter_topic.partitions NOT BETWEEN 1 AND 1024 OR alter_topic.max_priority NOT BETWEEN 0 AND 9 THEN
        RAISE EXCEPTION 'topic "%" can''t have % partitions and max_priority %', alter_topic.name,
            coalesce(alter_topic.partitions, old.partitions), coalesce(alter_topic.max_priority, old.max_priority)
            USING ERRCODE = 'OB007', HINT = 'Partitions are 1 to 1024, max_priority 0 to 9.';
    ELSIF NOT EXISTS (SELECT FROM outbox.retention r WHERE r.name = coalesce(alter_topic.retention, old.retention)) THEN
        RAISE EXCEPTION 'there is no retention class "%"', alter_topic.retention
            USING ERRCODE = 'OB007', HINT = 'SELECT name FROM outbox.retention shows them.';
    END IF;
    new := old;
    new.partitions := coalesce(alter_topic.partitions, old.partitions);
    new.max_priority := coalesce(alter_topic.max_priority, old.max_priority);
    new.retention := coalesce(alter_topic.retention, old.retention);
    IF new = old THEN
        RETURN false;
    END IF;
    new.generation := old.generation + 1;
    UPDATE outbox.topic t
    SET partitions = new.partitions, max_priority = new.max_priority, retention = new.retention, generation = new.generation
    WHERE t.id = new.id;
    PERFORM outbox.create_partitions(new);
    RETURN true;
END $$;
