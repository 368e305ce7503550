-- The 64-bit advisory lock that the writers of a slot share until they commit. ring: 0 is deduplication, 1 is inbox.
CREATE OR REPLACE FUNCTION outbox.slot_lock(ring int, slot int) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 8031453476610899968 + 128 + 16 * ring + slot;
