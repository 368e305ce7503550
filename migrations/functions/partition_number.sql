-- Which partition of n a key belongs to: its hash modulo n.
CREATE FUNCTION outbox.partition_number(key text, partitions int) RETURNS int
LANGUAGE sql VOLATILE
AS $$
SELECT CASE WHEN partitions = 1 THEN 0 ELSE (outbox.key_hash(key) % partitions)::int END
$$;
