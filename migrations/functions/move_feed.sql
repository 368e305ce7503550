-- What a subscription comes to in another log, in the transaction of its effects or in one of its own: it moves on in a partition
-- (to_offset is NULL: that log keeps no offsets with us), has done what "keys" names (known_once() knew none of them "looked" seconds ago), and leads
-- some messages round, see detour. Raises OB001, and the caller must roll back, if somebody else has moved on there, or has done one of the keys.
CREATE FUNCTION outbox.move_feed(
    subscription text, partition text, from_offset bigint, to_offset bigint, keys text[], topic text, detours json, durable boolean,
    looked float8 DEFAULT 1e6
) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    IF to_offset IS NOT NULL THEN
        PERFORM outbox.advance_source('from:' || subscription, partition, from_offset, to_offset);
    END IF;
    IF cardinality(keys) > 0 THEN
        PERFORM outbox.mark_once('from:' || subscription, keys, make_interval(secs => looked));
    END IF;
    IF detours IS NOT NULL THEN
        PERFORM outbox.detour(subscription, topic, detours);
    END IF;
END $$;
