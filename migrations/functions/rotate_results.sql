-- Empties the slots of outbox.result in which nothing lives any more. Returns the slots that were due, and who holds them if they
-- could not be emptied. Those that run dramatiq's workers call it now and then.
CREATE FUNCTION outbox.rotate_results(now timestamptz DEFAULT clock_timestamp()) RETURNS TABLE (slot int, held_by text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    leaf regclass;
    live boolean;
BEGIN
    FOR slot IN SELECT n FROM generate_series(0, 15) AS n
                WHERE n NOT IN (outbox.result_slot(rotate_results.now, '1 hour'), outbox.result_slot(rotate_results.now, '1 day')) LOOP
        leaf := format('outbox.%I', 'result_' || slot)::regclass;
        CONTINUE WHEN pg_relation_size(leaf) = 0;
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE expires_at > $1)', leaf) INTO live USING rotate_results.now;
        CONTINUE WHEN live;
        held_by := outbox.truncate_slot(leaf, format(
            'SELECT ''results that were written meanwhile'' FROM %s WHERE expires_at > %L LIMIT 1', leaf, rotate_results.now));
        RETURN NEXT;
    END LOOP;
END $$;
