-- A position for outbox.read: before the first message that is kept, the last one of each partition, or the next one that
-- commits; or where messages were published "at" a time (about: let read look at "since"), or at an offset of a single partition.
-- Of the topics that match a pattern (OB006: there is none), only partitions of a number, or that of an id, if one is given. The
-- whole of its own READ COMMITTED transaction, as bind is: ends, then snapshot, then xid.
CREATE FUNCTION outbox.read_from(
    pattern text, start text DEFAULT 'first', at timestamptz DEFAULT NULL, number int DEFAULT NULL, partition_id int DEFAULT NULL,
    "offset" bigint DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
    chosen int[];
    ends bigint[];
    targets bigint[];
BEGIN
    PERFORM outbox.require_own_transaction('read_from');
    IF read_from.start IS NULL OR read_from.start NOT IN ('first', 'last', 'next') THEN
        RAISE EXCEPTION 'a reader starts at first, last or next, at a time or an offset, not at "%"', read_from.start
            USING ERRCODE = 'OB007';
    END IF;
    IF read_from.pattern !~ '[*#]' AND NOT EXISTS (SELECT FROM outbox.topic t WHERE t.name = read_from.pattern) THEN
        RAISE EXCEPTION 'topic "%" is not declared, and nothing was published to it', read_from.pattern USING ERRCODE = 'OB006';
    END IF;
    SELECT coalesce(array_agg(c.id), '{}'), coalesce(array_agg(c.ended), '{}')
    INTO chosen, ends
    FROM (SELECT p.id, outbox.log_end(p.sequence) AS ended
          FROM outbox.topic t
          JOIN outbox.partition p ON p.topic_id = t.id
          WHERE (t.name = read_from.pattern OR read_from.pattern ~ '[*#]' AND outbox.topic_matches(t.name, read_from.pattern))
            AND p.backfill_for IS NULL AND coalesce(p.number = read_from.number, true)
            AND coalesce(p.id = read_from.partition_id, true)
          ORDER BY p.id) AS c;
    IF chosen = '{}' AND (read_from.number IS NOT NULL OR read_from.partition_id IS NOT NULL) THEN
        RAISE EXCEPTION '"%" has no partition %', read_from.pattern, coalesce(read_from.partition_id, read_from.number)
            USING ERRCODE = 'OB007';
    END IF;

    IF read_from."offset" IS NOT NULL THEN
        IF cardinality(chosen) <> 1 THEN
            RAISE EXCEPTION 'an offset is one of a single partition, and "%" has those of the ids %', read_from.pattern,
                array_to_string(chosen, ', ') USING ERRCODE = 'OB007', HINT = format(
                'Say which, as the id of the message: %s-%s.', chosen[1], read_from."offset");
        ELSIF read_from."offset" NOT BETWEEN 1 AND ends[1] + 1 THEN
            RAISE EXCEPTION 'offset % is not in partition %: it holds 1 to %', read_from."offset", chosen[1], ends[1]
                USING ERRCODE = 'OB007';
        END IF;
        targets := ARRAY[read_from."offset" - 1];
    ELSIF read_from.at IS NOT NULL THEN
        targets := ARRAY(SELECT coalesce(outbox.offset_at(c.id, read_from.at) - 1, c.ended)
                         FROM unnest(chosen, ends) WITH ORDINALITY AS c (id, ended, nth) ORDER BY c.nth);
    ELSIF read_from.start = 'first' THEN
        targets := array_fill(0::bigint, ARRAY[cardinality(chosen)]);
    ELSE
        targets := ends;
        IF read_from.start = 'last' THEN
            targets := ARRAY(SELECT outbox.start_target(c.id, c.ended, 'last', NULL, NULL)
                             FROM unnest(chosen, ends) WITH ORDINALITY AS c (id, ended, nth) ORDER BY c.nth);
        END IF;
        RETURN (
            WITH running AS MATERIALIZED (
                SELECT outbox.open_xids(pg_current_snapshot()) AS xids
            )
            SELECT coalesce(jsonb_object_agg(e.partition_id, outbox.place_of(place."offset", place.open, place.floor)), '{}')
            FROM unnest(chosen, targets) AS e (partition_id, target)
            CROSS JOIN running
            CROSS JOIN LATERAL outbox.place(e.partition_id, e.target, running.xids) AS place);
    END IF;
    RETURN (SELECT coalesce(jsonb_object_agg(e.partition_id, outbox.place_of(e.target, '{}', '{}')), '{}')
            FROM unnest(chosen, targets) AS e (partition_id, target));
END $$;
