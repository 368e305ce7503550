-- How many messages of each actor a subscription has not taken from a partition: those beyond its cursor, and those that transactions
-- which were open then have committed since. It counts "most" of each kind at most. STABLE: one snapshot. Internal: see actors.
CREATE FUNCTION outbox.unread_actors(subscription_id int, partition_id int, most int) RETURNS TABLE (actor text, messages bigint)
LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
DECLARE
    part outbox.partition;
    place outbox.position;
BEGIN
    SELECT p.* INTO part FROM outbox.partition p WHERE p.id = unread_actors.partition_id;
    SELECT p.* INTO place FROM outbox.position p
    WHERE p.subscription_id = unread_actors.subscription_id AND p.partition_id = unread_actors.partition_id
    ORDER BY p."offset" DESC LIMIT 1;
    RETURN QUERY
    SELECT u.headers ->> 'actor', count(*)
    FROM (SELECT l.headers, l.expires_at
          FROM outbox.late(part.id, place.open, place.floor, place."offset", most, part.first_slot, part.last_slot) AS l
          UNION ALL
          SELECT * FROM (
              SELECT m.headers, m.expires_at FROM outbox.message m
              WHERE m.slot BETWEEN part.first_slot AND part.last_slot AND m.partition_id = part.id AND m."offset" > place."offset"
              ORDER BY m."offset" LIMIT most) AS fresh) AS u
    WHERE u.expires_at IS NULL OR u.expires_at > clock_timestamp()
    GROUP BY 1;
END $$;
