-- The lowest offset of a message in a partition that was published at "at" or after; NULL if there is none. Times don't ascend
-- quite as offsets do, so a binary search, a look-up of message_fresh a step, aims 10 seconds before, and what follows is read
-- until one fits: exact where no message is more than 10 seconds older than one before it. Sees what the caller's snapshot does.
CREATE FUNCTION outbox.offset_at(partition_id int, at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $$
DECLARE
    aim timestamptz := at - interval '10 seconds';
    low bigint := 0;  -- a message that is older than the aim, or none
    high bigint;      -- the first that is not lies before or here
    middle bigint;
    met record;
    slots record;
BEGIN
    SELECT p.first_slot, p.last_slot INTO slots FROM outbox.partition p WHERE p.id = offset_at.partition_id;
    SELECT m."offset" + 1 INTO high FROM outbox.message m
    WHERE m.slot BETWEEN slots.first_slot AND slots.last_slot AND m.partition_id = offset_at.partition_id ORDER BY m."offset" DESC LIMIT 1;
    WHILE high - low > 1 LOOP
        middle := low + (high - low) / 2;
        SELECT m."offset", m.published_at INTO met FROM outbox.message m
        WHERE m.slot BETWEEN slots.first_slot AND slots.last_slot AND m.partition_id = offset_at.partition_id AND m."offset" >= middle AND m."offset" < high
        ORDER BY m."offset" LIMIT 1;
        IF met.published_at < aim THEN
            low := met."offset";
        ELSE  -- or there is only a hole from the middle on
            high := middle;
        END IF;
    END LOOP;
    RETURN (SELECT m."offset" FROM outbox.message m
            WHERE m.slot BETWEEN slots.first_slot AND slots.last_slot AND m.partition_id = offset_at.partition_id AND m."offset" > low AND m.published_at >= at
            ORDER BY m."offset" LIMIT 1);
END $$;
