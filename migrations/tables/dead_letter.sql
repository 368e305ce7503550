-- One message given up on, whole, with the history of its errors.
CREATE TABLE outbox.dead_letter (
    subscription_id int NOT NULL,
    partition_id int NOT NULL,
    "offset" bigint NOT NULL,
    attempt smallint NOT NULL,
    reason text NOT NULL,
    died_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz NOT NULL,
    key text,
    headers jsonb,
    payload json,
    body bytea,
    errors jsonb NOT NULL,
    PRIMARY KEY (subscription_id, partition_id, "offset")
);

COMMENT ON COLUMN outbox.dead_letter.attempt IS 'The number of the try that was the last.';

CREATE INDEX dead_letter_newest ON outbox.dead_letter (subscription_id, died_at);
