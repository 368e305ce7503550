-- Keeps a result for "ttl", 24 days at most; it replaces an earlier one of its key. One INSERT, and a commit that does not wait for the
-- disk: if a crash takes it back, it takes back the later settlement of its message too, which then is handled again.
CREATE FUNCTION outbox.store_result(key text, value bytea, ttl interval) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    now timestamptz := clock_timestamp();
BEGIN
    IF ttl IS NULL OR ttl > interval '24 days' THEN
        RAISE EXCEPTION 'a result can be kept for 24 days at most, not for %', ttl USING ERRCODE = 'OB007';
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO outbox.result AS r (slot, key, value, stored_at, expires_at)
    VALUES (outbox.result_slot(now, ttl), store_result.key, store_result.value, now, now + ttl)
    ON CONFLICT (slot, key) DO UPDATE
    SET value = excluded.value, stored_at = excluded.stored_at, expires_at = excluded.expires_at;
END $$;
