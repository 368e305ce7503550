-- Waits for the turns of partitions whose lanes are about to change, so that no pull parks a message meanwhile behind one
-- that goes. In order of the ids: who takes several can't deadlock with another. Internal: see settle.
CREATE FUNCTION outbox.take_turns(subscription_ids int[], partition_ids int[]) RETURNS void
LANGUAGE sql
AS $$
SELECT pg_advisory_xact_lock(outbox.turn_lock(t.subscription_id, t.partition_id))
FROM (SELECT DISTINCT subscription_id, partition_id FROM unnest(subscription_ids, partition_ids) AS u (subscription_id, partition_id)
      ORDER BY 1, 2 OFFSET 0) AS t
$$;
