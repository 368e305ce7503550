-- A worker process. Beyond alive_until it counts as dead and its leases are handed to others.
CREATE TABLE outbox.worker (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    subscriptions text[] NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    alive_until timestamptz NOT NULL,
    retired_at timestamptz,
    retired_xid xid8
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON COLUMN outbox.worker.retired_at IS
    'Ended, or found dead, at this time. The row stays until no transaction is open that was open then, and a minute at
least, so that a pull that was under way can''t hide a lease: recover looks again.';
