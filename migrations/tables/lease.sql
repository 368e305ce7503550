-- A batch in a worker's hands. Deleted when all of it is settled; reached by its exact id only.
CREATE TABLE outbox.lease (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id int NOT NULL,
    partition_id int NOT NULL,
    worker_id bigint NOT NULL,
    attempt smallint NOT NULL,
    redelivered boolean NOT NULL,
    suspect boolean NOT NULL DEFAULT false,
    offsets int8multirange NOT NULL,
    leased_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON COLUMN outbox.lease.redelivered IS
    'The message has a row in outbox.redelivery, which holds its content; otherwise the log does.';

COMMENT ON COLUMN outbox.lease.suspect IS
    'A worker died while it held this message before. A worker has only one such lease at a time.';

-- does this worker hold a suspect?
CREATE INDEX lease_suspect ON outbox.lease (worker_id) WHERE suspect;
