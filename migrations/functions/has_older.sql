-- Has the topic of a partition others, of the same priority, that a subscription reads before it? Internal: see outbox.cursor.
CREATE FUNCTION outbox.has_older(subscription_id int, partition_id int) RETURNS boolean
LANGUAGE sql STABLE
AS $$
SELECT EXISTS (
    SELECT FROM outbox.partition p
    JOIN outbox.partition older ON older.topic_id = p.topic_id AND older.generation < p.generation
                                  AND (older.priority = p.priority OR older.generation = 0)
    WHERE p.id = has_older.partition_id AND coalesce(older.backfill_for = has_older.subscription_id, true))
$$;
