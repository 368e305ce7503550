-- Gives a subscription cursors at the start of the partitions that match its patterns and have none: those that
-- were created since it was bound, or at the same moment. Returns how many. Runs in any transaction, again and
-- again: a cursor at 0 with nothing open needs no snapshot, since every offset is beyond it.
CREATE FUNCTION outbox.adopt(subscription_id int) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    adopted int;
BEGIN
    WITH missing AS (
        SELECT p.id
        FROM outbox.topic t
        JOIN outbox.partition p ON p.topic_id = t.id
        WHERE NOT EXISTS (SELECT FROM outbox.cursor c
                          WHERE c.subscription_id = adopt.subscription_id AND c.partition_id = p.id)
          AND EXISTS (SELECT FROM outbox.binding b
                      WHERE b.subscription_id = adopt.subscription_id AND outbox.topic_matches(t.name, b.pattern))
    ), placed AS (
        INSERT INTO outbox.cursor (subscription_id, partition_id)
        SELECT adopt.subscription_id, id FROM missing
        ON CONFLICT DO NOTHING
        RETURNING partition_id
    )
    INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor)
    SELECT adopt.subscription_id, partition_id, 0, '{}', '{}' FROM placed;
    GET DIAGNOSTICS adopted = ROW_COUNT;
    RETURN adopted;
END $$;
