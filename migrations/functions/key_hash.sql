-- The number by which a key's partition is found: the first four bytes of SHA-256 of its UTF-8, as a big-endian number. The same on
-- every Postgres version and in every language. No key: by chance.
CREATE FUNCTION outbox.key_hash(key text) RETURNS bigint
LANGUAGE sql VOLATILE
RETURN CASE
    WHEN key IS NULL THEN floor(random() * 4294967296)::bigint
    ELSE ('x' || encode(substr(sha256(convert_to(key, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint
END;
