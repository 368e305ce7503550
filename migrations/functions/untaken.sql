-- Which subscriptions have not read a message of the log yet, whether or not their bindings will let it pass then. Waits for pulls that are under way, and keeps others from beginning until the transaction ends. Internal: see cancel, edit.
CREATE FUNCTION outbox.untaken(partition_id int, "offset" bigint) RETURNS SETOF int
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
    PERFORM outbox.take_turns(array_agg(c.subscription_id), array_agg(c.partition_id))
    FROM outbox.cursor c WHERE c.partition_id = untaken.partition_id
    HAVING count(*) > 0;
    RETURN QUERY
    SELECT c.subscription_id
    FROM outbox.messages(untaken.partition_id, untaken."offset", untaken."offset") AS m
    JOIN outbox.cursor c ON c.partition_id = m.partition_id
    CROSS JOIN LATERAL (
        SELECT p."offset", p.open, p.floor FROM outbox.position p
        WHERE p.subscription_id = c.subscription_id AND p.partition_id = c.partition_id
        ORDER BY p."offset" DESC LIMIT 1) AS p
    WHERE p."offset" < m."offset"
       OR EXISTS (SELECT FROM unnest(p.open, p.floor) AS o (xid, floor) WHERE o.xid = m.xid AND o.floor < m."offset");
END $$;
