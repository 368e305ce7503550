-- A subscription reads a partition. Static: where it stands is in outbox.position.
CREATE TABLE outbox.cursor (
    subscription_id int NOT NULL REFERENCES outbox.subscription (id) ON DELETE CASCADE,
    partition_id int NOT NULL REFERENCES outbox.partition (id),
    PRIMARY KEY (subscription_id, partition_id)
);
