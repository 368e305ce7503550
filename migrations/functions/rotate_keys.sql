-- Empties the slots of outbox.deduplication or outbox.inbox whose keys have all been remembered long enough, one a call.
-- Returns the slots that were due, and who holds them if they could not be emptied. Workers call it now and then; in a database
-- that has only an inbox, whoever looks after it does.
CREATE OR REPLACE FUNCTION outbox.rotate_keys(log text DEFAULT 'inbox', now timestamptz DEFAULT clock_timestamp())
RETURNS TABLE (keys text, slot int, held_by text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    leaf regclass;
    live boolean;
BEGIN
    IF rotate_keys.log NOT IN ('inbox', 'deduplication') THEN
        RAISE EXCEPTION '"%" is not a log of keys: inbox or deduplication', rotate_keys.log USING ERRCODE = 'OB007';
    END IF;
    keys := rotate_keys.log;
    FOR slot IN SELECT n FROM generate_series(0, 15) AS n WHERE n <> outbox.key_slot(rotate_keys.now) LOOP
        leaf := format('outbox.%I', keys || '_' || slot)::regclass;
        CONTINUE WHEN pg_relation_size(leaf) = 0;
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE expires_at > $1)', leaf) INTO live USING rotate_keys.now;
        CONTINUE WHEN live;
        held_by := outbox.truncate_slot(leaf, format(
            'SELECT ''keys that were written meanwhile'' FROM %s WHERE expires_at > %L LIMIT 1', leaf, rotate_keys.now));
        RETURN NEXT;
        EXIT WHEN held_by IS NULL;
    END LOOP;
END $$;
