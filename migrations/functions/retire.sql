-- Ends a worker in good order: gives back what it still holds, without spending attempts, and forgets it.
CREATE FUNCTION outbox.retire(worker bigint) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    messages bigint;
BEGIN
    messages := outbox.hand_back(ARRAY(
        SELECT l.id FROM outbox.lease l WHERE l.worker_id = retire.worker ORDER BY l.id FOR UPDATE
    ), died => false);
    DELETE FROM outbox.worker w WHERE w.id = retire.worker;
    RETURN messages;
END $$;
