-- Moves the cursors of a subscription, all or none: to 'first', 'last', 'next', the message with an offset (of one partition),
-- the first published at a time or after, or a while ago: see parse_start. Of the topics that match a pattern only, or of their
-- partitions of one number. Otherwise as seek; its own READ COMMITTED transaction. dry_run only says where they stand, and would
-- stand.
CREATE FUNCTION outbox.seek_to(
    subscription text, start text, pattern text DEFAULT NULL, number int DEFAULT NULL, dry_run boolean DEFAULT false
) RETURNS TABLE (topic text, partition smallint, priority smallint, partition_id int, before bigint, after bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    reader int;
    chosen int[];
    wanted record;
BEGIN
    IF NOT dry_run THEN
        PERFORM outbox.require_own_transaction('seek_to');
    END IF;
    reader := outbox.subscription_id(seek_to.subscription);
    wanted := outbox.parse_start(seek_to.start);
    chosen := outbox.chosen_partitions(reader, seek_to.pattern, seek_to.number);
    PERFORM outbox.require_one_partition(wanted.kind, cardinality(chosen));
    IF dry_run THEN
        RETURN QUERY
        SELECT l.topic, l.partition, l.priority, l.partition_id, l."offset",
               outbox.start_target(l.partition_id, l.last_offset, wanted.kind, wanted."offset", wanted.at)
        FROM outbox.lag l WHERE l.subscription = seek_to.subscription AND l.partition_id = ANY (chosen)
        ORDER BY l.topic, l.partition_id;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT t.name, p.number, p.priority, p.id, m.before, m.after
    FROM outbox.move_cursors(reader, chosen, wanted.kind, wanted."offset", wanted.at, keep_late => true) AS m
    JOIN outbox.partition p ON p.id = m.partition_id
    JOIN outbox.topic t ON t.id = p.topic_id
    ORDER BY t.name, p.id;
END $$;
