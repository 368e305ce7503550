-- Leases messages of a partition to a worker, by their offsets, of which low is the lowest and high the highest. Returns the lease.
-- Internal: see take and take_turn.
CREATE FUNCTION outbox.lease_batch(reader int, partition_id int, worker bigint, offsets bigint[], low bigint, high bigint) RETURNS bigint
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    lease bigint := outbox.new_lease_id();
BEGIN
    INSERT INTO outbox.lease (id, subscription_id, partition_id, worker_id, attempt, redelivered, offsets)
    OVERRIDING SYSTEM VALUE
    VALUES (lease, reader, partition_id, worker, 1, false,
            CASE WHEN high - low + 1 = cardinality(offsets) THEN int8multirange(int8range(low, high, '[]'))
                 ELSE (SELECT range_agg(int8range(o, o, '[]')) FROM unnest(offsets) AS o) END);
    RETURN lease;
END $$;
