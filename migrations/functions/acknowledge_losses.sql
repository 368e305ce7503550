-- Takes note of what a subscription lost since its backlog expires: `outbox status` and `outbox doctor` show it no more. Returns
-- the number of messages.
CREATE FUNCTION outbox.acknowledge_losses(subscription text) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader int := outbox.subscription_id(acknowledge_losses.subscription);
    messages bigint;
BEGIN
    WITH seen AS (
        UPDATE outbox.loss l SET acknowledged_at = clock_timestamp()
        WHERE l.subscription_id = reader AND l.acknowledged_at IS NULL
        RETURNING l.messages
    )
    SELECT coalesce(sum(s.messages), 0)::bigint INTO messages FROM seen s;
    RETURN messages;
END $$;
