-- Until the transaction ends, nobody else advances this source in this partition. Returns the first offset that is not
-- published, NULL if there was none yet. Internal to advance_source, and to whoever begins to read.
CREATE FUNCTION outbox.lock_source(source text, partition text) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(lock_source.source || E'\n' || lock_source.partition, 8031453476610899968 + 67));
    RETURN (
        SELECT p."offset" FROM outbox.source_position p
        WHERE p.source = lock_source.source AND p.partition = lock_source.partition ORDER BY p."offset" DESC LIMIT 1
    );
END $$;
