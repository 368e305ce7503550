-- Writes down that a consumer does what these keys name, as once() does for one of them, for seven days. Raises OB001 if it has done
-- one of them: the caller must roll back. A concurrent call with one of the keys waits for the other transaction to end. looked:
-- so long ago known_once() knew none of them; only if the slot has changed since, older slots are looked at again. Internal: see move_feed.
CREATE FUNCTION outbox.mark_once(consumer text, keys text[], looked interval) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    remembered CONSTANT interval := '7 days';
    now timestamptz := clock_timestamp();
    wanted text[] := ARRAY(SELECT DISTINCT k FROM unnest(keys) AS k ORDER BY k);  -- in one order: who marks several can't deadlock
    slots smallint[] := (outbox.enter_slot(1, remembered)).writes;
    writing smallint;
    written int := cardinality(wanted);
BEGIN
    IF outbox.key_slot(now - looked - interval '1 minute') = outbox.key_slot(clock_timestamp())
       OR NOT EXISTS (SELECT FROM outbox.known_once(mark_once.consumer, wanted)) THEN
        FOREACH writing IN ARRAY slots LOOP
            INSERT INTO outbox.inbox AS i (slot, consumer, key, expires_at)
            SELECT writing, mark_once.consumer, k, now + remembered FROM unnest(wanted) AS k
            ON CONFLICT (slot, consumer, key) DO UPDATE SET expires_at = excluded.expires_at
            WHERE i.expires_at <= now;
            GET DIAGNOSTICS written = ROW_COUNT;
            EXIT WHEN written < cardinality(wanted);
        END LOOP;
        IF written = cardinality(wanted) THEN
            RETURN;
        END IF;
    END IF;
    RAISE EXCEPTION '"%" has done one of % messages already', mark_once.consumer, cardinality(wanted) USING ERRCODE = 'OB001';
END $$;
