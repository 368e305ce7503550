-- Ends a binding, as it was bound, and removes the cursors of the partitions that no other binding of the subscription takes in:
-- bound again, it starts anew. What is leased or waits for another try ends as usual. Returns the number of cursors that went,
-- NULL if there was no such binding. In a READ COMMITTED transaction of the caller; waits for pulls of those partitions.
CREATE FUNCTION outbox.unbind(
    subscription text, pattern text, headers jsonb DEFAULT NULL, match text DEFAULT 'all', filter text DEFAULT NULL,
    alternate boolean DEFAULT false
) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader int;
    gone int[];
BEGIN
    PERFORM outbox.require_read_committed('unbind');
    reader := outbox.subscription_id(unbind.subscription);
    PERFORM outbox.take_turns(array_agg(reader), array_agg(p))  -- before the lock: publishers must not wait for a pull
    FROM outbox.partitions_of(reader, unbind.pattern) AS p HAVING count(*) > 0;
    PERFORM outbox.lock_subscriptions(ARRAY[unbind.subscription]);
    DELETE FROM outbox.binding b
    WHERE b.subscription_id = reader AND b.pattern = unbind.pattern AND b.match = unbind.match
      AND b.headers IS NOT DISTINCT FROM nullif(unbind.headers, '{}')
      AND b.filter IS NOT DISTINCT FROM unbind.filter AND b.alternate = unbind.alternate;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    gone := ARRAY(
        SELECT o.partition_id
        FROM outbox.partitions_of(reader, unbind.pattern) AS o (partition_id)
        JOIN outbox.partition p ON p.id = o.partition_id
        JOIN outbox.topic t ON t.id = p.topic_id
        WHERE NOT EXISTS (SELECT FROM outbox.binding b
                          WHERE b.subscription_id = reader AND outbox.topic_matches(t.name, b.pattern)));
    PERFORM outbox.drop_cursors(reader, gone);
    PERFORM outbox.note_bindings();
    RETURN cardinality(gone);
END $$;
