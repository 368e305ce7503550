-- The transactions that sessions have open in this database, and since when; no texts of queries. It sees what the owner of the
-- schema may see: all of them, if that is a superuser or has pg_read_all_stats.
CREATE FUNCTION outbox.open_transactions() RETURNS TABLE (
    pid int, usename name, application_name text, backend_type text, state text, xact_start timestamptz
)
LANGUAGE sql STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
SELECT a.pid, a.usename, a.application_name, a.backend_type, a.state, a.xact_start
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.xact_start IS NOT NULL
$$;
