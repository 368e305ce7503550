-- Gives a message another payload, and other headers unless they are NULL: for those who have not been handed it yet, and where it
-- waits for another try. Returns the subscriptions that will get the new one; those that had it in hand, or were done with it, are
-- not among them. Its key, topic and place stay; a try of theirs that fails is repeated with the new payload. In a READ COMMITTED
-- transaction; waits for pulls of its partition that are under way.
CREATE FUNCTION outbox.edit(partition_id int, "offset" bigint, payload json, headers jsonb DEFAULT NULL) RETURNS text[]
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    readers int[];
    waited int[];
BEGIN
    PERFORM outbox.require_read_committed('edit');
    readers := ARRAY(SELECT outbox.untaken(edit.partition_id, edit."offset"));
    IF edit.payload IS NULL THEN
        RAISE EXCEPTION 'a message can''t be edited to no payload' USING ERRCODE = 'OB007', HINT = 'outbox.cancel() takes it away.';
    END IF;
    IF readers <> '{}' THEN
        UPDATE outbox.message m
        SET payload = edit.payload, body = NULL, headers = coalesce(edit.headers, m.headers)
        WHERE m.partition_id = edit.partition_id AND m."offset" = edit."offset" AND m.expires_at IS DISTINCT FROM '-infinity';
        IF NOT FOUND THEN
            readers := '{}';
        END IF;
    END IF;
    WITH changed AS (
        UPDATE outbox.redelivery r
        SET payload = edit.payload, body = NULL, headers = coalesce(edit.headers, r.headers)
        WHERE r.partition_id = edit.partition_id AND r."offset" = edit."offset" AND r.lease_id IS NULL
          AND r.subscription_id = ANY (ARRAY(SELECT c.subscription_id FROM outbox.cursor c WHERE c.partition_id = edit.partition_id))
        RETURNING r.subscription_id
    )
    SELECT array_agg(c.subscription_id) INTO waited FROM changed c;
    RETURN ARRAY(SELECT s.name FROM outbox.subscription s WHERE s.id = ANY (readers || waited) ORDER BY s.name);
END $$;
