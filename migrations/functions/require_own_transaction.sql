-- Raises OB002 unless this is the beginning of a READ COMMITTED transaction: rows and snapshot must come from one
-- statement, and the own xid must be drawn after it.
CREATE FUNCTION outbox.require_own_transaction(caller text) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'outbox.% needs a READ COMMITTED transaction, this one is %',
            caller, upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'OB002', HINT = 'Call it on a connection in autocommit mode, at READ COMMITTED.';
    END IF;
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'outbox.% must run in a transaction of its own, and this one has already written something', caller
            USING ERRCODE = 'OB002', HINT = 'Call it on a connection in autocommit mode.';
    END IF;
END $$;
