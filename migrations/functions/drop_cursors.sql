-- Removes cursors of a subscription with their positions. Takes the turns of the partitions, so that no pull moves one meanwhile.
-- Internal: see unbind and unsubscribe, which have locked the subscription.
CREATE FUNCTION outbox.drop_cursors(reader int, partition_ids int[]) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM outbox.take_turns(array_agg(reader), array_agg(p)) FROM unnest(partition_ids) AS p HAVING count(*) > 0;
    DELETE FROM outbox.cursor c WHERE c.subscription_id = reader AND c.partition_id = ANY (partition_ids);
    DELETE FROM outbox.position p WHERE p.subscription_id = reader AND p.partition_id = ANY (partition_ids);
    UPDATE outbox.partition p SET backfill_for = 0  -- nobody's: bound again, it is not to be read again
    WHERE p.id = ANY (partition_ids) AND p.backfill_for = reader;
END $$;
