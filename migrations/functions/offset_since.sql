-- The last offset of a partition before which everything was published earlier than a time; 0 if nothing was. By bisection of
-- (partition_id, "offset"): some twenty look-ups. Where the clock went back, or a publisher waited between its offset and its
-- row, it is one of several such places. Internal: see read_from.
CREATE FUNCTION outbox.offset_since(partition_id int, at timestamptz, ended bigint) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    low bigint := 0;  -- what is here was published before, and what is above high was not
    high bigint := ended;
    middle bigint;
    probe record;
BEGIN
    WHILE low < high LOOP
        middle := low + (high - low) / 2;
        SELECT m."offset", m.published_at INTO probe FROM outbox.message m
        WHERE m.partition_id = offset_since.partition_id AND m."offset" > middle AND m."offset" <= high
        ORDER BY m."offset" LIMIT 1;
        IF probe.published_at < offset_since.at THEN
            low := probe."offset";
        ELSE  -- it was not, or there is none
            high := middle;
        END IF;
    END LOOP;
    RETURN low;
END $$;
