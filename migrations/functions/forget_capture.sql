-- Forgets what was captured of a table. False: nothing was. Internal: see uncapture.
CREATE FUNCTION outbox.forget_capture("table" regclass) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM outbox.capture c WHERE c."table" = forget_capture."table";
    RETURN FOUND;
END $$;
