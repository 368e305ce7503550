-- The transactions that may still commit offsets at or below what a snapshot showed.
-- A snapshot lists open xids only below its xmax; those from xmax up to our own can be open too. So our own xid
-- must be drawn after the snapshot was taken: call this in, or after, the statement that took it, in a
-- transaction that had no xid before. VOLATILE and PL/pgSQL, so that no planner draws the xid early.
CREATE FUNCTION outbox.open_xids(snapshot pg_snapshot) RETURNS xid8[]
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    own bigint := pg_current_xact_id()::text::bigint;
BEGIN
    RETURN ARRAY(
        SELECT pg_snapshot_xip(snapshot)
        UNION ALL
        SELECT xid::text::xid8 FROM generate_series(pg_snapshot_xmax(snapshot)::text::bigint, own - 1) AS unlisted (xid)
    );
END $$;
