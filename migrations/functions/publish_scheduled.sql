-- Publishes messages of outbox.scheduled, which the caller has locked, in the order of the ids, and deletes them; returns how
-- many. One that can't be published keeps no other from it: it is tried again 5 s later, then 10 s, … 5 minutes, and its error is
-- kept. Waits no longer than 200 ms for anybody. Internal: see publish_due, publish_ticks.
CREATE FUNCTION outbox.publish_scheduled(ids bigint[]) RETURNS bigint
LANGUAGE plpgsql
SET lock_timeout = '200ms'
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    problem text;
    published bigint := 0;
BEGIN
    BEGIN
        FOR i IN 1 .. cardinality(ids) LOOP
            PERFORM outbox.publish(s.topic, s.payload, s.key, s.headers, s.priority, s.body, s.idempotency_key, s.ttl)
            FROM outbox.scheduled s WHERE s.id = ids[i];
        END LOOP;
        DELETE FROM outbox.scheduled s WHERE s.id = ANY (ids);
        RETURN cardinality(ids);
    EXCEPTION WHEN OTHERS THEN
        problem := SQLSTATE || ': ' || SQLERRM;
    END;
    IF cardinality(ids) > 1 THEN  -- which of them?
        FOR i IN 1 .. cardinality(ids) LOOP
            published := published + outbox.publish_scheduled(ARRAY[ids[i]]);
        END LOOP;
        RETURN published;
    END IF;
    UPDATE outbox.scheduled s
    SET attempts = least(s.attempts + 1, 32767), error = problem,
        due_at = clock_timestamp() + least(interval '5 seconds' * 2 ^ least(s.attempts, 6), interval '5 minutes')
    WHERE s.id = ids[1];
    RETURN 0;
END $$;
