-- Binds a subscription, which it creates if there is none, to a topic from this transaction's snapshot on, and returns a partition
-- that the subscription reads before: for what the snapshot shows in the user's tables. In a REPEATABLE READ transaction that has
-- written nothing: the ends of the logs, then our xid; whoever had an offset before them drew its xid before ours. Internal: see
-- backfill.
CREATE FUNCTION outbox.start_backfill(subscription text, topic text) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unread int[];
    ends bigint[];
    running xid8[];
    reader int;
    read_by outbox.topic;
    rows_before int;
BEGIN
    IF current_setting('transaction_isolation') <> 'repeatable read' OR pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'backfill must be the first to write in a REPEATABLE READ transaction, this one is %',
            upper(current_setting('transaction_isolation'))
                || CASE WHEN pg_current_xact_id_if_assigned() IS NOT NULL THEN ' and has written' ELSE '' END
            USING ERRCODE = 'OB002', HINT = 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT outbox.backfill(...); COMMIT;';
    END IF;
    SELECT array_agg(p.id), array_agg(outbox.log_end(p.sequence)) INTO unread, ends
    FROM outbox.topic t JOIN outbox.partition p ON p.topic_id = t.id
    WHERE t.name = start_backfill.topic AND p.generation > 0;
    IF unread IS NULL THEN
        RAISE EXCEPTION 'topic "%" does not exist', start_backfill.topic
            USING ERRCODE = 'OB006', HINT = 'Create it with outbox.declare_topic().';
    END IF;
    running := outbox.open_xids(pg_current_snapshot());

    SELECT s.id INTO reader FROM outbox.subscription s WHERE s.name = start_backfill.subscription;
    reader := coalesce(reader, outbox.subscribe(start_backfill.subscription));
    IF EXISTS (SELECT FROM outbox.cursor c WHERE c.subscription_id = reader AND c.partition_id = ANY (unread)) THEN
        RAISE EXCEPTION 'subscription "%" reads topic "%" already', start_backfill.subscription, start_backfill.topic
            USING ERRCODE = 'OB007', HINT = 'A backfill is for a new reader. Take another name, or outbox.unbind() it first.';
    END IF;
    SELECT * INTO read_by FROM outbox.topic t WHERE t.name = start_backfill.topic;
    rows_before := outbox.create_partition(
        read_by.id, (SELECT count(*)::int FROM outbox.partition p WHERE p.topic_id = read_by.id AND p.generation = 0), 0, 0,
        read_by.retention, reader);
    INSERT INTO outbox.binding (subscription_id, pattern) VALUES (reader, start_backfill.topic) ON CONFLICT DO NOTHING;
    INSERT INTO outbox.cursor (subscription_id, partition_id, waits)
    SELECT reader, p, p <> rows_before FROM unnest(unread || rows_before) AS p;
    INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor)
    SELECT reader, e.partition_id, at.*
    FROM unnest(unread || rows_before, ends || 0::bigint) AS e (partition_id, ended)
    CROSS JOIN LATERAL outbox.place(e.partition_id, e.ended, running) AS at;
    PERFORM outbox.note_bindings();
    RETURN rows_before;
END $$;
