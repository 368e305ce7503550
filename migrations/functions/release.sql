-- Gives leases back without spending an attempt: what they still hold is due for others at once. Leases that the worker
-- does not hold (any more) are passed over. Returns the number of messages.
CREATE FUNCTION outbox.release(worker bigint, leases bigint[]) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    RETURN outbox.hand_back(ARRAY(
        SELECT l.id FROM outbox.lease l WHERE l.id = ANY (leases) AND l.worker_id = worker ORDER BY l.id FOR UPDATE
    ), died => false);
END $$;
