-- Notes that a worker runs one more subscription than it was registered with.
CREATE FUNCTION outbox.enlist(worker bigint, subscription text) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
UPDATE outbox.worker w SET subscriptions = w.subscriptions || enlist.subscription
WHERE w.id = enlist.worker AND enlist.subscription <> ALL (w.subscriptions)
$$;
