-- Empties a slot by TRUNCATE, unless "held_by" (a query; no row: nobody) says that somebody still needs it, or a transaction uses
-- it and does not end within lock_timeout. Returns who, or NULL if it is empty now. prepare, finish: statements that run before
-- we have the lock (once it was seen that we can have it), and while we have it. Internal: see rotate.
CREATE OR REPLACE FUNCTION outbox.truncate_slot(
    leaf regclass, held_by text, prepare text DEFAULT NULL, finish text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql
SET lock_timeout = '100ms'
AS $$
DECLARE
    holder text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN  -- the second look must see what committed meanwhile
        RAISE EXCEPTION 'slots are emptied at READ COMMITTED only, this transaction is %',
            upper(current_setting('transaction_isolation')) USING ERRCODE = 'OB002';
    END IF;
    EXECUTE held_by INTO holder;
    IF holder IS NOT NULL THEN
        RETURN holder;
    END IF;
    BEGIN
        IF prepare IS NOT NULL THEN
            BEGIN
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', leaf);
                RAISE EXCEPTION USING ERRCODE = 'OB000';  -- gives the lock back
            EXCEPTION WHEN SQLSTATE 'OB000' THEN
                EXECUTE prepare;
            END;
            EXECUTE held_by INTO holder;  -- that may have taken long
            IF holder IS NOT NULL THEN
                RAISE lock_not_available;
            END IF;
        END IF;
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', leaf);
        EXECUTE held_by INTO holder;  -- now that nobody has rows in it that we can't see
        IF holder IS NOT NULL THEN
            RAISE lock_not_available;
        END IF;
        IF finish IS NOT NULL THEN
            EXECUTE finish;
        END IF;
        EXECUTE format('TRUNCATE %s', leaf);
        RETURN NULL;
    EXCEPTION WHEN lock_not_available THEN
        RETURN coalesce(holder, (
            SELECT string_agg(DISTINCT format('%s, open since %s', coalesce('pid ' || l.pid, 'a prepared transaction'),
                                              coalesce(a.xact_start::timestamptz(0)::text, 'long ago')), '; ')
            FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.relation = leaf AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND l.pid IS DISTINCT FROM pg_backend_pid()), 'a transaction that has just ended');
    END;
END $$;
