-- Brings subscriptions to what is defined, all or nothing: {"name", "guarantee", "max_attempts", "on_failure", "settings": {},
-- "start": as bind takes it, "bind": [{"pattern", "headers", "match", "filter", "alternate"}], "unbind": [...]} each, or {"name",
-- "remove": true, "force"}. Cursors that stay are where they were, new ones are placed as bind places them. The beginning of a
-- READ COMMITTED transaction, in which other definitions may follow: commit soon. Waits for pulls where cursors go.
CREATE FUNCTION outbox.define(subscriptions jsonb) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text[];
    partition_ids int[];
    ends bigint[];
    starts text[];
    places jsonb;
    wanted jsonb;
BEGIN
    PERFORM outbox.require_own_transaction('define');
    -- 1. The turns of all that may lose its cursor or change its order, before a row is locked: publishers never wait for a pull.
    PERFORM outbox.take_turns(array_agg(c.subscription_id), array_agg(c.partition_id))
    FROM jsonb_array_elements(define.subscriptions) AS d (wanted)
    JOIN outbox.subscription s ON s.name = d.wanted ->> 'name'
    JOIN outbox.cursor c ON c.subscription_id = s.id
    JOIN outbox.partition p ON p.id = c.partition_id
    JOIN outbox.topic t ON t.id = p.topic_id
    WHERE d.wanted ? 'remove' OR s.on_failure IS DISTINCT FROM d.wanted ->> 'on_failure'
       OR EXISTS (SELECT FROM jsonb_array_elements(d.wanted -> 'unbind') AS b WHERE outbox.topic_matches(t.name, b ->> 'pattern'))
    HAVING count(*) > 0;

    -- 2. Where new cursors go: the ends of the logs, then the snapshot and our xid in one statement.
    SELECT array_agg(new.name), array_agg(new.id), array_agg(outbox.log_end(new.sequence)), array_agg(new.start)
    INTO names, partition_ids, ends, starts
    FROM (
        SELECT DISTINCT ON (d.wanted ->> 'name', p.id)
               d.wanted ->> 'name' AS name, p.id, coalesce(d.wanted ->> 'start', 'first') AS start, p.sequence
        FROM jsonb_array_elements(define.subscriptions) AS d (wanted)
        CROSS JOIN LATERAL jsonb_array_elements(d.wanted -> 'bind') AS b
        JOIN outbox.topic t ON outbox.topic_matches(t.name, b ->> 'pattern')
        JOIN outbox.partition p ON p.topic_id = t.id
        LEFT JOIN outbox.subscription s ON s.name = d.wanted ->> 'name'
        WHERE coalesce(p.backfill_for = s.id, p.backfill_for IS NULL)
          AND NOT EXISTS (SELECT FROM outbox.cursor c WHERE c.subscription_id = s.id AND c.partition_id = p.id)
    ) AS new;
    PERFORM outbox.require_one_partition('offset', max(one.cursors))
    FROM (SELECT count(*)::int AS cursors FROM unnest(names, starts) AS n (name, start)
          WHERE n.start ~ '^\d+$' GROUP BY n.name) AS one;
    WITH running AS MATERIALIZED (
        SELECT outbox.open_xids(pg_current_snapshot()) AS xids
    ), meant AS MATERIALIZED (
        SELECT s.start, w.* FROM (SELECT DISTINCT unnest(starts) AS start) AS s
        CROSS JOIN LATERAL outbox.parse_start(s.start) AS w
    )
    SELECT jsonb_agg(jsonb_build_object('name', e.name, 'partition_id', e.partition_id, 'offset', at."offset",
                                        'open', at.open::text, 'floor', at.floor::text))
    INTO places
    FROM unnest(names, partition_ids, ends, starts) AS e (name, partition_id, ended, start)
    JOIN meant m ON m.start = e.start
    CROSS JOIN running
    CROSS JOIN LATERAL outbox.place(
        e.partition_id, outbox.start_target(e.partition_id, e.ended, m.kind, m."offset", m.at), running.xids) AS at;

    -- 3. Write.
    PERFORM outbox.lock_subscriptions(ARRAY(
        SELECT d.wanted ->> 'name' FROM jsonb_array_elements(define.subscriptions) AS d (wanted)
        WHERE d.wanted ? 'remove' OR jsonb_array_length(d.wanted -> 'unbind') > 0));
    FOR wanted IN SELECT * FROM jsonb_array_elements(define.subscriptions) LOOP
        PERFORM outbox.define_one(wanted);
    END LOOP;
    WITH placed AS (
        INSERT INTO outbox.cursor (subscription_id, partition_id, waits)
        SELECT s.id, (at ->> 'partition_id')::int, outbox.has_older(s.id, (at ->> 'partition_id')::int)
        FROM jsonb_array_elements(places) AS at JOIN outbox.subscription s ON s.name = at ->> 'name'
        ON CONFLICT DO NOTHING
        RETURNING *
    )
    INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor)
    SELECT c.subscription_id, c.partition_id, (at ->> 'offset')::bigint, (at ->> 'open')::xid8[], (at ->> 'floor')::bigint[]
    FROM jsonb_array_elements(places) AS at
    JOIN outbox.subscription s ON s.name = at ->> 'name'
    JOIN placed c ON c.subscription_id = s.id AND c.partition_id = (at ->> 'partition_id')::int;
    PERFORM outbox.note_bindings();
END $$;
