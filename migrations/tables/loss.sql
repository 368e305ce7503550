-- What a subscription whose backlog expires had not taken of a slot when that was emptied: a row a partition and slot.
CREATE TABLE outbox.loss (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id int NOT NULL REFERENCES outbox.subscription (id) ON DELETE CASCADE,
    partition_id int NOT NULL,
    first_offset bigint NOT NULL,
    last_offset bigint NOT NULL,
    messages bigint NOT NULL CHECK (messages > 0),
    lost_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    acknowledged_at timestamptz
);

COMMENT ON COLUMN outbox.loss.messages IS
    'Messages between the offsets, both included, that it would have read; its bindings'' conditions are not looked at.';

-- what a subscription lost, and nobody has taken note of
CREATE INDEX loss_unacknowledged ON outbox.loss (subscription_id) WHERE acknowledged_at IS NULL;
