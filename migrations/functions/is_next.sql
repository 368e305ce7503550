-- Is a message that goes to wait the next of its lane? The others of its lane that go with it stand behind it (nth is 1), and
-- none is there already. Whoever has no lane is. The caller has the partition's turn. Internal: see fail and hand_back.
CREATE FUNCTION outbox.is_next(subscription_id int, partition_id int, lane text, nth bigint) RETURNS boolean
LANGUAGE sql STABLE
RETURN lane IS NULL OR nth = 1 AND NOT outbox.lane_is_taken(subscription_id, partition_id, lane);
