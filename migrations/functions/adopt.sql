-- Gives a subscription cursors at the start of the partitions that match its patterns and have none: those that
-- were created since it was bound, or at the same moment. Returns how many. Runs in any transaction, again and
-- again: a cursor at 0 with nothing open needs no snapshot, since every offset is beyond it. Writes only if some are missing, and
-- then locks the subscription against an unbind that is under way.
CREATE FUNCTION outbox.adopt(subscription_id int, noted boolean DEFAULT true) RETURNS int
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    adopted int;
BEGIN
    IF NOT EXISTS (SELECT FROM outbox.without_cursor(adopt.subscription_id)) THEN
        RETURN 0;
    END IF;
    PERFORM FROM outbox.subscription s WHERE s.id = adopt.subscription_id FOR KEY SHARE;
    WITH placed AS (
        INSERT INTO outbox.cursor (subscription_id, partition_id, waits)
        SELECT adopt.subscription_id, missing, outbox.has_older(adopt.subscription_id, missing)
        FROM outbox.without_cursor(adopt.subscription_id) AS missing
        ON CONFLICT DO NOTHING
        RETURNING partition_id
    )
    INSERT INTO outbox.position (subscription_id, partition_id, "offset", open, floor)
    SELECT adopt.subscription_id, partition_id, 0, '{}', '{}' FROM placed;
    GET DIAGNOSTICS adopted = ROW_COUNT;
    IF noted AND adopted > 0 THEN  -- the topic did not know of the subscription when it was declared
        PERFORM outbox.note_bindings();
    END IF;
    RETURN adopted;
END $$;
