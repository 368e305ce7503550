-- Empties a slot of the log whose messages are all past their retention, or too much for their class, and not held by a
-- subscription; and slots of keys that need not be remembered any more: one of each a call. Returns the slots that were due, and
-- who holds them (NULL: they are empty now). TRUNCATE is not MVCC-safe: whoever reads history in an older snapshot finds such
-- a slot empty.
CREATE FUNCTION outbox.rotate() RETURNS TABLE (log text, slot int, held_by text)
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
SELECT * FROM outbox.rotate_as_of(clock_timestamp())
$$;
