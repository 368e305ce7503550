-- The highest offset that was drawn from a partition's sequence; 0 if none was. Raises if we may not look: NULL would read
-- as an empty log.
CREATE FUNCTION outbox.log_end(sequence regclass) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ended bigint := pg_sequence_last_value(sequence);
BEGIN
    IF ended IS NULL AND NOT has_sequence_privilege(sequence, 'SELECT, USAGE') THEN
        RAISE insufficient_privilege USING MESSAGE = format('permission denied for sequence %s', sequence),
            HINT = format('GRANT SELECT, USAGE ON SEQUENCE %s TO %I;', sequence, current_user);
    END IF;
    RETURN coalesce(ended, 0);
END $$;
