-- Which partition of n a key belongs to: the first four bytes of SHA-256 of its UTF-8, as a big-endian number,
-- modulo n. The same on every Postgres version and in every language. No key: any partition.
CREATE FUNCTION outbox.partition_number(key text, partitions int) RETURNS int
LANGUAGE sql VOLATILE
AS $$
SELECT CASE
    WHEN partitions = 1 THEN 0
    WHEN key IS NULL THEN floor(random() * partitions)::int
    ELSE (('x' || encode(substr(sha256(convert_to(key, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint % partitions)::int
END
$$;
