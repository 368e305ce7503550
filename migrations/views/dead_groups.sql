-- Dead letters by what killed them and where: a row for each subscription, class of the last error, and place in the handler.
CREATE VIEW outbox.dead_groups AS
SELECT s.name AS subscription, g.error_class, g.place, g.letters, g.first_died_at, g.last_died_at,
       example.partition_id AS example_partition_id, example."offset" AS example_offset
FROM (SELECT d.subscription_id, d.error_class, d.place, count(*) AS letters, min(d.died_at) AS first_died_at,
             max(d.died_at) AS last_died_at
      FROM outbox.dead_letter d GROUP BY d.subscription_id, d.error_class, d.place) AS g
JOIN outbox.subscription s ON s.id = g.subscription_id
CROSS JOIN LATERAL (
    SELECT d.partition_id, d."offset" FROM outbox.dead_letter d
    WHERE (d.subscription_id, d.error_class, d.place) = (g.subscription_id, g.error_class, g.place)
    ORDER BY d.partition_id DESC, d."offset" DESC LIMIT 1
) AS example;
