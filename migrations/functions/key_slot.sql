-- Which of the 16 slots of two days keys are written to at a time: outbox.deduplication and outbox.inbox.
CREATE OR REPLACE FUNCTION outbox.key_slot(at timestamptz) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (floor(extract(epoch FROM at) / 172800)::bigint % 16)::smallint;
