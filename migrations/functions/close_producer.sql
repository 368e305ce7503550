-- Forgets a transactional id: somebody has fenced it.
CREATE FUNCTION outbox.close_producer(id text) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DELETE FROM outbox.producer p WHERE p.id = close_producer.id
$$;
