-- The version of what is installed, for clients that may execute functions but read no tables.
CREATE FUNCTION outbox.schema_version() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '0001';
