-- Has a subscription something more that it may pull at once, after a pull that passed over, or parked, what it read? Reads one
-- position a partition. Internal: see pull_batches.
CREATE FUNCTION outbox.has_more(reader outbox.subscription) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM outbox.news(reader.id) AS n
        WHERE n.ended > n."offset"
          AND (reader.on_failure IS NULL OR outbox.is_in_order(reader.id, n.partition_id, reader.on_failure)));
END $$;
