-- Moves a source from the offset at which it began to read on to another, in the transaction that publishes what it read. Raises
-- OB001 if it stands elsewhere: somebody else has published that already, and the caller must roll back. Locks the source's partition.
CREATE FUNCTION outbox.advance_source(source text, partition text, from_offset bigint, to_offset bigint) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    stands bigint := outbox.lock_source(advance_source.source, advance_source.partition);
BEGIN
    IF stands IS DISTINCT FROM from_offset OR to_offset <= coalesce(from_offset, -1) THEN
        RAISE EXCEPTION 'source "%" stands at % in partition %, not at %: another process has read on',
            advance_source.source, stands, advance_source.partition, from_offset USING ERRCODE = 'OB001';
    END IF;
    INSERT INTO outbox.source_position (source, partition, "offset") VALUES (advance_source.source, advance_source.partition, to_offset);
    DELETE FROM outbox.source_position p
    WHERE p.source = advance_source.source AND p.partition = advance_source.partition AND p."offset" = from_offset;
END $$;
