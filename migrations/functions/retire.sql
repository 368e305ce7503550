-- Ends a worker in good order: it pulls no more, and what it still holds goes back without spending attempts. Returns the
-- number of messages. recover forgets its row later.
CREATE FUNCTION outbox.retire(worker bigint) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    messages bigint;
BEGIN
    messages := outbox.hand_back(ARRAY(
        SELECT l.id FROM outbox.lease l WHERE l.worker_id = retire.worker ORDER BY l.id FOR UPDATE
    ), died => false);
    PERFORM outbox.mark_retired(retire.worker);
    RETURN messages;
END $$;
