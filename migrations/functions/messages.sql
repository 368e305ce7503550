-- The messages of a partition from one offset to another, both included, in order; by (partition_id, "offset"). A function of
-- its own: in a join the planner may use the partition alone, and scan all of its log.
CREATE FUNCTION outbox.messages(partition_id int, first bigint, last bigint) RETURNS SETOF outbox.message
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    slots record;
BEGIN
    SELECT p.first_slot, p.last_slot INTO slots FROM outbox.partition p WHERE p.id = messages.partition_id;
    RETURN QUERY
    SELECT m.* FROM outbox.message m
    WHERE m.slot BETWEEN slots.first_slot AND slots.last_slot AND m.partition_id = messages.partition_id
      AND m."offset" BETWEEN messages.first AND messages.last
    ORDER BY m."offset";
END $$;
