-- The slot of a retention class that messages are written to, now or as of a time.
CREATE FUNCTION outbox.slot(
    first_slot smallint, slots smallint, slot_width interval, now timestamptz DEFAULT clock_timestamp()
) RETURNS smallint
LANGUAGE sql VOLATILE
RETURN (first_slot + floor(date_part('epoch', now) / date_part('epoch', slot_width))::bigint % slots)::smallint;
