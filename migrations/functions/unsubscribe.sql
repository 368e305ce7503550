-- Removes a subscription: its bindings, cursors, redeliveries and leases (which can't be settled then). Refused (OB007)
-- while live workers run it, or it has dead letters; forced, those go too. Messages stay in the log. In a READ COMMITTED
-- transaction of the caller; waits for pulls and settlements that are under way.
CREATE FUNCTION outbox.unsubscribe(name text, force boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader int;
    found_leases bigint;
    found_redeliveries bigint;
    workers text;
BEGIN
    PERFORM outbox.require_read_committed('unsubscribe');
    reader := outbox.subscription_id(unsubscribe.name);
    SELECT string_agg(w.name, ', ') INTO workers FROM outbox.worker w
    WHERE unsubscribe.name = ANY (w.subscriptions) AND w.alive_until > clock_timestamp() AND w.retired_at IS NULL;
    IF workers IS NOT NULL AND NOT force THEN
        RAISE EXCEPTION 'subscription "%" is run by live workers: %', unsubscribe.name, workers
            USING ERRCODE = 'OB007', HINT = 'Stop them first, or force it.';
    END IF;
    IF NOT force AND EXISTS (SELECT FROM outbox.dead_letter d WHERE d.subscription_id = reader) THEN
        RAISE EXCEPTION 'subscription "%" has dead letters', unsubscribe.name
            USING ERRCODE = 'OB007', HINT = 'Redrive or purge them first, or force it.';
    END IF;

    PERFORM outbox.take_turns(array_agg(reader), array_agg(c.partition_id))  -- before the lock, see unbind
    FROM outbox.cursor c WHERE c.subscription_id = reader HAVING count(*) > 0;
    PERFORM outbox.lock_subscriptions(ARRAY[unsubscribe.name]);
    PERFORM outbox.drop_cursors(reader, ARRAY(SELECT c.partition_id FROM outbox.cursor c WHERE c.subscription_id = reader));
    LOOP  -- a settlement that we waited for has left redeliveries; a pull, which claimed one, a lease
        DELETE FROM outbox.lease l WHERE l.subscription_id = reader;
        GET DIAGNOSTICS found_leases = ROW_COUNT;
        DELETE FROM outbox.redelivery r WHERE r.subscription_id = reader;
        GET DIAGNOSTICS found_redeliveries = ROW_COUNT;
        EXIT WHEN found_leases + found_redeliveries = 0;
    END LOOP;
    DELETE FROM outbox.dead_letter d WHERE d.subscription_id = reader;
    DELETE FROM outbox.subscription s WHERE s.id = reader;
    PERFORM outbox.note_bindings();
END $$;
