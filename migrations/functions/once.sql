-- Is this the first time that a consumer does what "key" names? True once in "remembered" (28 days at most), if the caller's
-- transaction commits; false ever after. A concurrent call with the same key waits for the other transaction to end. Call it
-- in the transaction of the effect.
CREATE OR REPLACE FUNCTION outbox.once(consumer text, key text, remembered interval DEFAULT '7 days') RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    kept record;
    writing smallint;
    first boolean := true;
BEGIN
    IF once.consumer IS NULL OR once.key IS NULL OR remembered NOT BETWEEN interval '1 second' AND interval '28 days' THEN
        RAISE EXCEPTION 'once needs a consumer, a key, and to remember it for 1 second to 28 days' USING ERRCODE = 'OB007';
    END IF;
    SELECT * INTO kept FROM outbox.enter_slot(1, remembered);
    PERFORM FROM outbox.inbox i
    WHERE i.slot = ANY (kept.live) AND i.consumer = once.consumer AND i.key = once.key AND i.expires_at > clock_timestamp();
    IF FOUND THEN
        RETURN false;
    END IF;
    FOREACH writing IN ARRAY kept.writes LOOP
        INSERT INTO outbox.inbox AS i (slot, consumer, key, expires_at)
        VALUES (writing, once.consumer, once.key, clock_timestamp() + remembered)
        ON CONFLICT (slot, consumer, key) DO UPDATE SET expires_at = excluded.expires_at
        WHERE i.expires_at <= clock_timestamp();
        first := first AND FOUND;
    END LOOP;
    RETURN first;
END $$;
