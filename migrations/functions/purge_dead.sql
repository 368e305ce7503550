-- Deletes dead letters of a subscription: those that fit "filter" (see dead_letters), or at (partition_ids[i], offsets[i]); all,
-- if neither is given. Returns how many.
CREATE FUNCTION outbox.purge_dead(
    subscription text, partition_ids int[] DEFAULT NULL, offsets bigint[] DEFAULT NULL, filter jsonb DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader int := outbox.subscription_id(subscription);
    purged bigint;
BEGIN
    IF cardinality(partition_ids) IS DISTINCT FROM cardinality(purge_dead.offsets)
       OR partition_ids IS NOT NULL AND filter IS NOT NULL THEN
        RAISE EXCEPTION 'purge_dead takes partition_ids and offsets of one length, or a filter' USING ERRCODE = 'OB007';
    END IF;
    IF partition_ids IS NULL THEN
        SELECT array_agg(f.partition_id), array_agg(f."offset") INTO partition_ids, purge_dead.offsets
        FROM outbox.dead_letter_ids(subscription, filter) AS f;
    END IF;
    PERFORM FROM outbox.dead_letter d
    WHERE d.subscription_id = reader
      AND (d.partition_id, d."offset") IN (SELECT * FROM unnest(partition_ids, purge_dead.offsets))
    ORDER BY d.partition_id, d."offset" FOR UPDATE;
    DELETE FROM outbox.dead_letter d
    WHERE d.subscription_id = reader
      AND (d.partition_id, d."offset") IN (SELECT * FROM unnest(partition_ids, purge_dead.offsets));
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END $$;
