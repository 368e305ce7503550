-- Does a message wait for another try, or is it being tried again? By its exact key, as a function of its own so that no planner
-- makes it a join on a part of the key. Internal: see replay.
CREATE FUNCTION outbox.is_waiting(subscription_id int, partition_id int, "offset" bigint) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM outbox.redelivery r
                   WHERE r.subscription_id = is_waiting.subscription_id AND r.partition_id = is_waiting.partition_id
                     AND r."offset" = is_waiting."offset");
END $$;
