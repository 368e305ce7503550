-- Adds an amount, which may be negative, to a counter (0 if it is absent), unless that would leave lowest … highest; true: it did.
-- It lives for "ttl" from then. One statement on one row, which it locks; NULL: no such bound.
CREATE FUNCTION outbox.move_counter(key text, amount bigint, lowest bigint, highest bigint, ttl interval) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);  -- a crash takes back the settlement that came after, too
    INSERT INTO outbox.counter AS c (key, value, expires_at)
    SELECT move_counter.key, amount, clock_timestamp() + move_counter.ttl
    WHERE amount BETWEEN coalesce(lowest, amount) AND coalesce(highest, amount)
       OR EXISTS (SELECT FROM outbox.counter k WHERE k.key = move_counter.key AND k.expires_at > clock_timestamp())
    ON CONFLICT ON CONSTRAINT counter_pkey DO UPDATE
    SET value = CASE WHEN c.expires_at > clock_timestamp() THEN c.value ELSE 0 END + amount, expires_at = excluded.expires_at
    WHERE CASE WHEN c.expires_at > clock_timestamp() THEN c.value ELSE 0 END + amount
          BETWEEN coalesce(lowest, -9223372036854775808) AND coalesce(highest, 9223372036854775807);
    RETURN FOUND;
END $$;
