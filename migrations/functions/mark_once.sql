-- Writes down that a consumer does what these keys name, as once() does for one of them. Raises OB001 if it has done one of them:
-- the caller must roll back. A concurrent call with one of the keys waits for the other transaction to end. Internal: see move_feed.
CREATE FUNCTION outbox.mark_once(consumer text, keys text[], remembered interval) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    wanted text[] := ARRAY(SELECT DISTINCT k FROM unnest(keys) AS k ORDER BY k);  -- in one order: who marks several can't deadlock
    kept record;
    writing smallint;
    written int := cardinality(wanted);
BEGIN
    SELECT * INTO kept FROM outbox.enter_slot(1, remembered);
    IF NOT EXISTS (SELECT FROM outbox.inbox i WHERE i.slot = ANY (kept.live) AND i.consumer = mark_once.consumer
                                                AND i.key = ANY (wanted) AND i.expires_at > clock_timestamp()) THEN
        FOREACH writing IN ARRAY kept.writes LOOP
            INSERT INTO outbox.inbox AS i (slot, consumer, key, expires_at)
            SELECT writing, mark_once.consumer, k, clock_timestamp() + remembered FROM unnest(wanted) AS k
            ON CONFLICT (slot, consumer, key) DO UPDATE SET expires_at = excluded.expires_at
            WHERE i.expires_at <= clock_timestamp();
            GET DIAGNOSTICS written = ROW_COUNT;
            EXIT WHEN written < cardinality(wanted);
        END LOOP;
        IF written = cardinality(wanted) THEN
            RETURN;
        END IF;
    END IF;
    RAISE EXCEPTION '"%" has done one of % messages already', mark_once.consumer, cardinality(wanted) USING ERRCODE = 'OB001';
END $$;
