-- Sets a counter, unless it exists; true: it did not. Whoever adds the same key meanwhile is waited for.
CREATE FUNCTION outbox.add_counter(key text, value bigint, ttl interval) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);  -- a crash takes back the settlement that came after, too
    INSERT INTO outbox.counter AS c (key, value, expires_at)
    VALUES (add_counter.key, add_counter.value, clock_timestamp() + add_counter.ttl)
    ON CONFLICT ON CONSTRAINT counter_pkey DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
    WHERE c.expires_at <= clock_timestamp();
    RETURN FOUND;
END $$;
