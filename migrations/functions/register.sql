-- Makes a worker known and returns its id. It is alive for "timeout", and after each heartbeat again.
CREATE FUNCTION outbox.register(name text, subscriptions text[], timeout interval DEFAULT '30 seconds') RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
INSERT INTO outbox.worker (name, subscriptions, alive_until)
VALUES (name, subscriptions, clock_timestamp() + timeout)
RETURNING id
$$;
