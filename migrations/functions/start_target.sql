-- Where a cursor stands that starts as parse_start has read it: everything above that offset is delivered. "ended" is the end of
-- the log, read before. STABLE, so that it reads with the snapshot that showed which transactions are open: what commits later
-- than it is not above the target is late then. Internal: see bind, define and move_cursors.
CREATE FUNCTION outbox.start_target(partition_id int, ended bigint, kind text, "offset" bigint, at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $$
DECLARE
    slots record;
BEGIN
    IF kind = 'first' THEN
        RETURN 0;
    ELSIF kind = 'next' THEN
        RETURN ended;
    ELSIF kind = 'last' THEN
        SELECT p.first_slot, p.last_slot INTO slots FROM outbox.partition p WHERE p.id = start_target.partition_id;
        RETURN coalesce((SELECT m."offset" - 1 FROM outbox.message m
                         WHERE m.slot BETWEEN slots.first_slot AND slots.last_slot AND m.partition_id = start_target.partition_id
                         ORDER BY m."offset" DESC LIMIT 1), ended);
    ELSIF kind = 'time' THEN
        RETURN coalesce(outbox.offset_at(start_target.partition_id, at) - 1, ended);
    ELSIF start_target."offset" BETWEEN 1 AND ended + 1 THEN
        RETURN start_target."offset" - 1;
    END IF;
    RAISE EXCEPTION 'offset % is not in partition %: its next one is %',
        start_target."offset", start_target.partition_id, ended + 1 USING ERRCODE = 'OB007';
END $$;
