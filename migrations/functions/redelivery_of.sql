-- Where the redelivery is that a lease was given for, if it still is that lease's. By its exact key, as a function of its own:
-- in a join the planner may use a part of the key, and walk the dead rows of all others.
CREATE FUNCTION outbox.redelivery_of(subscription_id int, partition_id int, "offset" bigint, lease_id bigint) RETURNS tid
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT r.ctid FROM outbox.redelivery r
            WHERE r.subscription_id = redelivery_of.subscription_id AND r.partition_id = redelivery_of.partition_id
              AND r."offset" = redelivery_of."offset" AND r.lease_id = redelivery_of.lease_id);
END $$;
