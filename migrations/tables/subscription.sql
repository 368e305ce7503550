-- A reader of the log: RabbitMQ's queue, Kafka's consumer group. Static: written when it is declared.
CREATE TABLE outbox.subscription (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
        CHECK (name ~ '^[A-Za-z0-9_.-]+$' AND length(name) <= 255),
    guarantee text NOT NULL
        CHECK (guarantee IN ('at-most-once', 'at-least-once', 'exactly-once')),
    max_attempts smallint NOT NULL CHECK (max_attempts BETWEEN 1 AND 32766),
    on_failure text CHECK (on_failure IN ('block', 'park', 'dead-letter')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (on_failure IS NULL OR guarantee <> 'at-most-once')
);

COMMENT ON COLUMN outbox.subscription.max_attempts IS
    'The attempt that is a message''s last: when it fails, or its worker dies in it, the message becomes a dead letter.';

COMMENT ON COLUMN outbox.subscription.on_failure IS
    'NULL: unordered. Otherwise one batch of a partition is in flight at a time, in order, and a message that fails blocks its
partition, parks its key, or becomes a dead letter at once.';
