-- Adds an amount to a counter, unless it, or the sum of it and of those of "keys" would exceed "highest"; true: it did. Calls whose
-- keys overlap take turns: each locks, until its transaction ends, what it writes, and shares what it reads, in one order.
CREATE FUNCTION outbox.move_counter_within(key text, keys text[], amount bigint, highest bigint, ttl interval) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    one record;
    total numeric;
BEGIN
    FOR one IN
        SELECT hashtextextended('outbox.counter:' || k, 0) AS lock, bool_or(k = move_counter_within.key) AS is_own
        FROM unnest(keys || move_counter_within.key) AS k GROUP BY 1 ORDER BY 1
    LOOP
        IF one.is_own THEN
            PERFORM pg_advisory_xact_lock(one.lock);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(one.lock);
        END IF;
    END LOOP;
    SELECT coalesce(sum(c.value), 0) INTO total FROM outbox.counter c
    WHERE c.key = ANY (keys) AND c.expires_at > clock_timestamp();
    RETURN total + amount <= highest
       AND outbox.move_counter(move_counter_within.key, amount, NULL, highest, move_counter_within.ttl);
END $$;
