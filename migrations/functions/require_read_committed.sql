-- Raises OB002 unless the transaction is READ COMMITTED: an older snapshot would not show the positions that pulls have
-- written before they gave us their turns.
CREATE FUNCTION outbox.require_read_committed(caller text) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'outbox.% needs a READ COMMITTED transaction, this one is %',
            caller, upper(current_setting('transaction_isolation')) USING ERRCODE = 'OB002';
    END IF;
END $$;
