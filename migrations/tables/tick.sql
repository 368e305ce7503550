-- Where a schedule stands: one row, replaced at each tick (never updated: it is found by its time, and dead rows lie behind).
CREATE TABLE outbox.tick (
    schedule_id int NOT NULL,
    next_at timestamptz NOT NULL,
    last_at timestamptz,
    PRIMARY KEY (schedule_id, next_at)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

COMMENT ON COLUMN outbox.tick.next_at IS 'The next tick. infinity: never, or not while it is paused.';

COMMENT ON COLUMN outbox.tick.last_at IS 'The tick that was published last.';

-- which schedules are due: next_at > ? AND next_at <= ? ORDER BY next_at; when the next is
CREATE INDEX tick_due ON outbox.tick (next_at, schedule_id);
