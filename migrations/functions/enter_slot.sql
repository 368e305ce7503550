-- Lets the caller's transaction write keys, and returns the slots in which a live key may lie, and those to write it to: that
-- of this moment, and older ones which another transaction, that began before the slot changed, may still write, or of which
-- our snapshot is too old to show all. Who finds a key in no live slot, and then writes it to all "writes", is the only one
-- who has it. ring: 0 is deduplication, 1 is inbox. Internal.
CREATE OR REPLACE FUNCTION outbox.enter_slot(
    ring int, remembered interval, OUT live smallint[], OUT writes smallint[]
)
LANGUAGE plpgsql
AS $$
DECLARE
    old_snapshot boolean := current_setting('transaction_isolation') <> 'read committed';
    slot smallint;
    old smallint;
    lock bigint;
BEGIN
    LOOP  -- whoever sees the next slot sees our lock on this one, too
        slot := outbox.key_slot(clock_timestamp());
        PERFORM pg_advisory_xact_lock_shared(outbox.slot_lock(ring, slot));
        EXIT WHEN slot = outbox.key_slot(clock_timestamp());
    END LOOP;
    live := ARRAY[slot];
    writes := ARRAY[slot];
    FOR back IN -1 .. least(ceil(extract(epoch FROM remembered) / 172800)::int, 15) LOOP
        CONTINUE WHEN back = 0;
        old := (slot + 16 - back) % 16;  -- the one after this, too: the clock may have been set back
        live := live || old;
        lock := outbox.slot_lock(ring, old);
        -- in one expression: a cancelled statement must not leave the lock behind
        IF (CASE WHEN pg_try_advisory_lock(lock) THEN pg_advisory_unlock(lock) ELSE false END) THEN
            CONTINUE WHEN NOT old_snapshot;
        END IF;
        writes := writes || old;
    END LOOP;
    IF cardinality(writes) > 1 THEN  -- everybody writes them in one order
        writes := ARRAY(SELECT w FROM unnest(writes) AS w ORDER BY w);
    END IF;
END $$;
