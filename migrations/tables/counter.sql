-- Numbers that dramatiq's rate limiters and barriers count with. Few rows, updated in place: no index but the key's, so that
-- updates stay in their page; reached by exact key. What expired counts as absent, and goes with expire_counters.
CREATE TABLE outbox.counter (
    key text PRIMARY KEY,
    value bigint NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);
