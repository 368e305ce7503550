-- Does a message of this lane wait, or is it being tried again? By (subscription_id, partition_id, lane), as a function of its
-- own so that no planner makes it a join.
CREATE FUNCTION outbox.lane_is_taken(subscription_id int, partition_id int, lane text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM outbox.redelivery r
                   WHERE r.subscription_id = lane_is_taken.subscription_id AND r.partition_id = lane_is_taken.partition_id
                     AND r.lane = lane_is_taken.lane);
END $$;
