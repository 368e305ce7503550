-- The offsets of a lease, low the lowest and high the highest of them, as a lease holds them. Internal: see take and take_turn.
CREATE FUNCTION outbox.as_ranges(offsets bigint[], low bigint, high bigint) RETURNS int8multirange
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF high - low + 1 = cardinality(offsets) THEN
        RETURN int8multirange(int8range(low, high, '[]'));
    END IF;
    RETURN (SELECT range_agg(int8range(o, o, '[]')) FROM unnest(offsets) AS o);
END $$;
