-- Hands the leases of dead workers to the living: of those whose time is over, and of "worker" at once (a supervisor saw
-- it die). Returns the number of messages. Every worker calls it now and then; concurrent calls share the work. A lease
-- that is being settled right now is passed over, and looked at again: a retired worker is forgotten only when none of the
-- transactions is left that could still show a lease of it.
CREATE FUNCTION outbox.recover(worker bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    dead outbox.worker;
    messages bigint := 0;
BEGIN
    FOR dead IN
        SELECT * FROM outbox.worker w WHERE w.alive_until < clock_timestamp() OR w.id = recover.worker
        ORDER BY w.id FOR UPDATE SKIP LOCKED
    LOOP
        messages := messages + outbox.hand_back(ARRAY(
            SELECT l.id FROM outbox.lease l LEFT JOIN outbox.subscription s ON s.id = l.subscription_id
            WHERE l.worker_id = dead.id AND (s.on_failure IS NULL OR pg_try_advisory_xact_lock(
                outbox.turn_lock(l.subscription_id, l.partition_id)))  -- the dead may hold it, stopped before its COMMIT
            ORDER BY l.id FOR UPDATE OF l SKIP LOCKED
        ), died => true);
        IF dead.retired_at < clock_timestamp() - interval '1 minute'
           AND dead.retired_xid < pg_snapshot_xmin(pg_current_snapshot())
           AND NOT EXISTS (SELECT FROM outbox.lease l WHERE l.worker_id = dead.id) THEN
            DELETE FROM outbox.worker w WHERE w.id = dead.id;
        ELSE
            PERFORM outbox.mark_retired(dead.id);
        END IF;
    END LOOP;
    RETURN messages;
END $$;
