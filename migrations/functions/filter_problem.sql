-- Why a filter is none that bind would take; NULL if it is one.
CREATE FUNCTION outbox.filter_problem(filter text) RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM outbox.check_filter(filter_problem.filter);
    RETURN NULL;
EXCEPTION WHEN SQLSTATE 'OB007' THEN
    RETURN SQLERRM;
END $$;
