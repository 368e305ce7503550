-- How many offsets lie between a subscription's cursors and the ends of their logs: an upper bound of the messages that wait, since
-- transactions that rolled back leave holes until the cursor has passed them. Internal: see require_room.
CREATE FUNCTION outbox.backlog(reader int) RETURNS bigint
LANGUAGE sql VOLATILE
AS $$
SELECT coalesce(sum(greatest(n.ended - n."offset", 0)), 0)::bigint FROM outbox.news(reader) AS n
$$;
