-- Deletes dead letters that are older than their subscription's dead_letter_ttl, max_letters at most, the oldest first; returns
-- how many. By (subscription_id, died_at). Letters that another transaction has in hand are passed over. Every worker calls it.
CREATE FUNCTION outbox.expire_dead_letters(max_letters int DEFAULT 1000) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    reader outbox.subscription;
    expired bigint := 0;
    gone bigint;
BEGIN
    FOR reader IN SELECT * FROM outbox.subscription s WHERE s.dead_letter_ttl IS NOT NULL ORDER BY s.id LOOP
        DELETE FROM outbox.dead_letter d WHERE d.ctid = ANY (ARRAY(
            SELECT old.ctid FROM outbox.dead_letter old
            WHERE old.subscription_id = reader.id AND old.died_at < clock_timestamp() - reader.dead_letter_ttl
            ORDER BY old.died_at LIMIT max_letters - expired
            FOR UPDATE SKIP LOCKED));
        GET DIAGNOSTICS gone = ROW_COUNT;
        expired := expired + gone;
        EXIT WHEN expired >= max_letters;
    END LOOP;
    RETURN expired;
END $$;
