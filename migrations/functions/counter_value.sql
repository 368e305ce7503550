-- What a counter stands at; NULL: it is absent, or has expired.
CREATE FUNCTION outbox.counter_value(key text) RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
SELECT c.value FROM outbox.counter c WHERE c.key = counter_value.key AND c.expires_at > clock_timestamp()
$$;
