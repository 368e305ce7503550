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
    error_class text NOT NULL GENERATED ALWAYS AS (left(coalesce(errors -> -1 ->> 'class', ''), 200)) STORED,
    place text NOT NULL GENERATED ALWAYS AS (left(coalesce(errors -> -1 ->> 'place', ''), 200)) STORED,
    PRIMARY KEY (subscription_id, partition_id, "offset")
);

COMMENT ON COLUMN outbox.dead_letter.attempt IS 'The number of the try that was the last; 0: it was never tried.';

COMMENT ON COLUMN outbox.dead_letter.error_class IS 'Of its last error; empty if it had none.';

COMMENT ON COLUMN outbox.dead_letter.place IS 'Where its last error was raised, in the handler''s own code: file:line function.';

-- the newest, and those whose time is over: subscription_id = ? AND died_at < ? ORDER BY died_at
CREATE INDEX dead_letter_newest ON outbox.dead_letter (subscription_id, died_at);

-- groups: how many of each, since when; and the letters of one, in order
CREATE INDEX dead_letter_group ON outbox.dead_letter (subscription_id, error_class, place, partition_id, "offset")
    INCLUDE (died_at);
