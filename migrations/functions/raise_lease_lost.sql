-- Raises OB001 with the leases that the worker does not hold as asked. Internal: see settle.
CREATE FUNCTION outbox.raise_lease_lost(worker bigint, leases bigint[]) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'worker % does not hold lease(s) % as it was asked to settle: they were settled, or handed to another worker',
        worker, array_to_string(leases, ', ')
        USING ERRCODE = 'OB001', HINT = 'Roll the transaction back. The message is, or was, in other hands.';
END $$;
