-- The result that is kept under a key; NULL: there is none, or it has expired. One look by the key in each slot.
CREATE FUNCTION outbox.result_of(key text) RETURNS bytea
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
    newest record;
BEGIN
    SELECT r.value, r.expires_at INTO newest FROM outbox.result r
    WHERE r.key = result_of.key ORDER BY r.stored_at DESC LIMIT 1;
    RETURN CASE WHEN newest.expires_at > clock_timestamp() THEN newest.value END;
END $$;
