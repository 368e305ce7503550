-- The slot of a retention class that messages are written to now.
CREATE FUNCTION outbox.slot(first_slot smallint, slots smallint, slot_width interval) RETURNS smallint
LANGUAGE sql VOLATILE
RETURN (first_slot + floor(extract(epoch FROM clock_timestamp()) / extract(epoch FROM slot_width))::bigint % slots)::smallint;
