-- A transactional id of Kafka that a worker of a relay produces under. The row stays until somebody has fenced the id: only then
-- what the worker held may be delivered by others.
CREATE TABLE outbox.producer (
    id text PRIMARY KEY,
    relay text NOT NULL,
    worker_id bigint NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON COLUMN outbox.producer.worker_id IS 'A row of outbox.worker for as long as that lives; of one that does not, the id must be fenced.';
