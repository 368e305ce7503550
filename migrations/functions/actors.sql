-- dramatiq's messages by queue and actor: what waits in the log, for another try or for its time, what is in hand and what is dead. Of
-- each priority of a queue it counts "most" waiting ones at most. A queue is a subscription that is bound to the topic of its
-- own name alone, under "namespace"; one snapshot. Shows names and numbers, no content.
CREATE FUNCTION outbox.actors(namespace text DEFAULT NULL, queue text DEFAULT NULL, most int DEFAULT 10000) RETURNS TABLE (
    queue_name text, actor text, waiting bigint, retrying bigint, in_flight bigint, delayed bigint, dead bigint
)
LANGUAGE sql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
WITH queue AS (
    SELECT s.id, s.name FROM outbox.subscription s
    WHERE CASE WHEN actors.queue IS NOT NULL THEN s.name = actors.namespace || '.' || actors.queue
               WHEN actors.namespace IS NOT NULL THEN starts_with(s.name, actors.namespace || '.') ELSE true END
      AND (SELECT array_agg(b.pattern) FROM outbox.binding b WHERE b.subscription_id = s.id) = ARRAY[s.name]
), found AS (
    SELECT q.name, u.actor, u.messages AS waiting, 0::bigint AS retrying, 0::bigint AS in_flight, 0::bigint AS delayed, 0::bigint AS dead
    FROM queue q
    JOIN outbox.cursor c ON c.subscription_id = q.id
    CROSS JOIN LATERAL outbox.unread_actors(q.id, c.partition_id, most) AS u
    UNION ALL
    SELECT q.name, r.headers ->> 'actor', 0, count(*) FILTER (WHERE r.lease_id IS NULL), count(r.lease_id), 0, 0
    FROM queue q JOIN outbox.redelivery r ON r.subscription_id = q.id GROUP BY 1, 2
    UNION ALL
    SELECT q.name, m.headers ->> 'actor', 0, 0, count(*), 0, 0
    FROM queue q
    JOIN outbox.lease l ON l.subscription_id = q.id AND NOT l.redelivered
    CROSS JOIN LATERAL unnest(l.offsets) AS o (range)
    CROSS JOIN LATERAL outbox.messages(l.partition_id, lower(o.range), upper(o.range) - 1) AS m
    GROUP BY 1, 2
    UNION ALL
    SELECT q.name, s.headers ->> 'actor', 0, 0, 0, count(*), 0
    FROM queue q JOIN outbox.scheduled s ON s.topic = q.name GROUP BY 1, 2
    UNION ALL
    SELECT q.name, d.headers ->> 'actor', 0, 0, 0, 0, count(*)
    FROM queue q JOIN outbox.dead_letter d ON d.subscription_id = q.id GROUP BY 1, 2
)
SELECT f.name, f.actor, sum(f.waiting)::bigint, sum(f.retrying)::bigint, sum(f.in_flight)::bigint, sum(f.delayed)::bigint,
       sum(f.dead)::bigint
FROM found f WHERE f.actor IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
$$;
