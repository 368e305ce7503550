-- A table of the application whose changes are published: what outbox.capture() was told. The triggers carry it, too, and go by
-- what they carry. A table that was dropped leaves its row behind until something is captured again.
CREATE TABLE outbox.capture (
    "table" regclass PRIMARY KEY,
    topic text NOT NULL,
    operations text[] NOT NULL
        CHECK (operations <> '{}' AND operations <@ '{insert,update,delete,truncate}'),
    columns text[],
    key text[],
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON COLUMN outbox.capture.columns IS 'The columns that messages show, beside the key. NULL: all that there are.';

COMMENT ON COLUMN outbox.capture.key IS 'The columns that are the key of messages. NULL: the primary key; {}: they have none.';
