-- Which of these keys a consumer has done already, as far as that has committed: see once() and mark_once().
CREATE FUNCTION outbox.known_once(consumer text, keys text[]) RETURNS SETOF text
LANGUAGE sql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
SELECT DISTINCT i.key FROM outbox.inbox i
WHERE i.consumer = known_once.consumer AND i.key = ANY (known_once.keys) AND i.expires_at > clock_timestamp()
$$;
