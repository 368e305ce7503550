-- Gives dead letters of a subscription another life, attempts counted from 1 again, history kept: those that fit "filter" (see
-- dead_letters), or at (partition_ids[i], offsets[i]); all, if neither is given. At once, or "rate" a second from due_from
-- (NULL: now) on. "payload" replaces that of one letter. Concurrent calls wait for each other's letters. Returns how many.
CREATE FUNCTION outbox.redrive(
    subscription text, partition_ids int[] DEFAULT NULL, offsets bigint[] DEFAULT NULL, filter jsonb DEFAULT NULL,
    rate float8 DEFAULT NULL, due_from timestamptz DEFAULT NULL, payload json DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    reader outbox.subscription;
    redriven bigint;
BEGIN
    SELECT * INTO reader FROM outbox.subscription s WHERE s.id = outbox.subscription_id(redrive.subscription);
    IF cardinality(partition_ids) IS DISTINCT FROM cardinality(redrive.offsets) THEN
        RAISE EXCEPTION 'redrive got % partition_ids and % offsets: the arrays must be of one length',
            cardinality(partition_ids), cardinality(redrive.offsets) USING ERRCODE = 'OB007';
    END IF;
    IF NOT (rate > 0 AND rate < 'infinity') THEN
        RAISE EXCEPTION 'rate is %, it must be more than 0 messages a second', rate USING ERRCODE = 'OB007';
    END IF;
    IF redrive.payload IS NOT NULL AND cardinality(partition_ids) IS DISTINCT FROM 1 THEN
        RAISE EXCEPTION 'a payload is for one dead letter: name it' USING ERRCODE = 'OB007';
    END IF;
    IF partition_ids IS NOT NULL AND filter IS NOT NULL THEN
        RAISE EXCEPTION 'redrive got places and a filter: it takes one of the two' USING ERRCODE = 'OB007';
    END IF;
    IF reader.on_failure IS NOT NULL THEN
        PERFORM outbox.take_turns(array_agg(c.subscription_id), array_agg(c.partition_id))
        FROM outbox.cursor c
        WHERE c.subscription_id = reader.id AND (partition_ids IS NULL OR c.partition_id = ANY (partition_ids))
        HAVING count(*) > 0;
    END IF;
    IF partition_ids IS NULL THEN
        SELECT array_agg(f.partition_id), array_agg(f."offset") INTO partition_ids, redrive.offsets
        FROM outbox.dead_letter_ids(redrive.subscription, filter) AS f;
    END IF;
    redriven := outbox.raise_dead(reader.id, partition_ids, redrive.offsets, rate, coalesce(due_from, clock_timestamp()),
                                  redrive.payload);
    PERFORM outbox.wake(t.topic_id) FROM (
        SELECT DISTINCT p.topic_id FROM outbox.cursor c JOIN outbox.partition p ON p.id = c.partition_id
        WHERE c.subscription_id = reader.id AND redriven > 0) AS t;
    RETURN redriven;
END $$;
