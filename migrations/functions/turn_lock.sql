-- The 64-bit advisory lock that is the turn to pull a partition for a subscription.
CREATE FUNCTION outbox.turn_lock(subscription_id int, partition_id int) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashint8extended((subscription_id::bigint << 32) | partition_id, 8031453476610899968);
