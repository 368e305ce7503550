-- The transactional ids of a relay whose workers have ended or were found dead, and that nobody has fenced yet.
CREATE FUNCTION outbox.dead_producers(relay text) RETURNS SETOF text
LANGUAGE sql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
SELECT p.id FROM outbox.producer p
WHERE p.relay = dead_producers.relay
  AND NOT EXISTS (SELECT FROM outbox.worker w WHERE w.id = p.worker_id AND w.retired_at IS NULL)
ORDER BY p.opened_at, p.id
$$;
