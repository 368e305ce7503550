-- A subscription reads a partition. Static: where it stands is in outbox.position.
CREATE TABLE outbox.cursor (
    subscription_id int NOT NULL REFERENCES outbox.subscription (id) ON DELETE CASCADE,
    partition_id int NOT NULL REFERENCES outbox.partition (id),
    waits boolean NOT NULL,
    PRIMARY KEY (subscription_id, partition_id)
);

COMMENT ON COLUMN outbox.cursor.waits IS
    'Has the topic an older generation of partitions, or rows from before the log? This one is read when all of those has been.';
