-- Does a subscription read others before a partition? Internal: see outbox.cursor.
CREATE FUNCTION outbox.has_older(subscription_id int, partition_id int) RETURNS boolean
LANGUAGE sql STABLE
AS $$
SELECT EXISTS (
    SELECT FROM outbox.older_partitions(has_older.partition_id) AS older
    WHERE coalesce(older.backfill_for = has_older.subscription_id, true))
$$;
