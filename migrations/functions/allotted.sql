-- How many of what waits in the i-th of some partitions may go on waiting, if max_backlog may in all of them: higher priorities first,
-- and of the same priority each its share. Internal: see pull_batches.
CREATE FUNCTION outbox.allotted(max_backlog bigint, i int, offsets bigint[], ends bigint[], priorities smallint[]) RETURNS bigint
LANGUAGE sql IMMUTABLE
AS $$
SELECT div(greatest(0, least(max_backlog - w.above, w.beside)) * (ends[i] - offsets[i]), greatest(1, w.beside))::bigint
FROM (
    SELECT coalesce(sum(u.ended - u.read_to) FILTER (WHERE u.priority > priorities[i]), 0) AS above,
           sum(u.ended - u.read_to) FILTER (WHERE u.priority = priorities[i]) AS beside
    FROM unnest(offsets, ends, priorities) AS u (read_to, ended, priority)
) AS w
$$;
