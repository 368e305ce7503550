-- The 64-bit advisory lock that is the turn to pull a partition for a subscription. Hashed one after the other: the hash of
-- one bigint is the hash of its halves' XOR, and so one lock for all pairs of the same XOR.
CREATE FUNCTION outbox.turn_lock(subscription_id int, partition_id int) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashint8extended(partition_id, hashint8extended(subscription_id, 8031453476610899968));
