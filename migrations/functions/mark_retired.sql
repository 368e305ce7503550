-- Lets a worker pull no more, and recover look at it again in a minute (sooner while leases of it are left). Internal: see
-- retire and recover.
CREATE FUNCTION outbox.mark_retired(worker bigint) RETURNS void
LANGUAGE sql
AS $$
UPDATE outbox.worker w
SET retired_at = coalesce(w.retired_at, clock_timestamp()), retired_xid = coalesce(w.retired_xid, pg_current_xact_id()),
    alive_until = CASE WHEN EXISTS (SELECT FROM outbox.lease l WHERE l.worker_id = mark_retired.worker)
                       THEN clock_timestamp() ELSE clock_timestamp() + interval '1 minute' END
WHERE w.id = mark_retired.worker
$$;
