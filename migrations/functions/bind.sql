-- Lets a subscription read the topics that match a pattern: those that exist from "start" on ('first': all the history that is
-- kept, 'next': what commits from now on, or a place as seek_to takes it), later ones from their beginning. Of their messages
-- only those that have the headers and fit the filter, see outbox.binding. Returns the number of new cursors; binding again
-- changes nothing. Its own READ COMMITTED transaction: sequence, then snapshot and xid in one statement.
CREATE FUNCTION outbox.bind(
    subscription text, pattern text, start text DEFAULT 'first', headers jsonb DEFAULT NULL, match text DEFAULT 'all',
    filter text DEFAULT NULL, alternate boolean DEFAULT false
) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    reader int;
    unread int[];
    ends bigint[];
    wanted record;
    placed int;
BEGIN
    PERFORM outbox.require_own_transaction('bind');
    wanted := outbox.parse_start(bind.start);
    reader := outbox.subscription_id(bind.subscription);

    PERFORM outbox.check_filter(bind.filter);
    SELECT array_agg(p.id), array_agg(outbox.log_end(p.sequence))
    INTO unread, ends
    FROM outbox.topic t
    JOIN outbox.partition p ON p.topic_id = t.id
    WHERE outbox.topic_matches(t.name, bind.pattern) AND coalesce(p.backfill_for = reader, true)
      AND NOT EXISTS (SELECT FROM outbox.cursor c WHERE c.subscription_id = reader AND c.partition_id = p.id);
    PERFORM outbox.require_one_partition(wanted.kind, cardinality(unread));

    WITH running AS MATERIALIZED (
        SELECT outbox.open_xids(pg_current_snapshot()) AS xids
    ), bound AS (
        INSERT INTO outbox.binding (subscription_id, pattern, headers, match, filter, alternate)
        VALUES (reader, bind.pattern, nullif(bind.headers, '{}'), bind.match, bind.filter, bind.alternate)
        ON CONFLICT DO NOTHING
    ), placed AS (
        INSERT INTO outbox.cursor (subscription_id, partition_id, waits)
        SELECT reader, u, outbox.has_older(reader, u) FROM unnest(unread) AS u
        ON CONFLICT DO NOTHING
        RETURNING partition_id
    )
    INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor)
    SELECT reader, e.partition_id, at.*
    FROM unnest(unread, ends) AS e (partition_id, ended)
    JOIN placed USING (partition_id)
    CROSS JOIN running
    CROSS JOIN LATERAL outbox.place(
        e.partition_id, outbox.start_target(e.partition_id, e.ended, wanted.kind, wanted."offset", wanted.at), running.xids
    ) AS at;
    GET DIAGNOSTICS placed = ROW_COUNT;
    PERFORM outbox.note_bindings();
    RETURN placed;
END $$;
