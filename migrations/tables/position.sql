-- Where a cursor stands. Everything at or below "offset" has been taken, except what the transactions in
-- open may still commit above their floor. The row with the highest offset counts, so that a look-up never
-- meets the dead rows of those before it.
CREATE TABLE outbox.position (
    subscription_id int NOT NULL,
    partition_id int NOT NULL,
    "offset" bigint NOT NULL,
    open xid8[] NOT NULL,
    floor bigint[] NOT NULL,
    lease_id bigint,
    low bigint,
    PRIMARY KEY (subscription_id, partition_id, "offset"),
    CHECK (cardinality(open) = cardinality(floor))
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON COLUMN outbox.position.lease_id IS
    'Of an ordered subscription: the batch that was handed out last. While that lease exists, the partition waits.';

COMMENT ON COLUMN outbox.position.low IS
    'The lowest offset of that batch: what failed of it is at or above.';
