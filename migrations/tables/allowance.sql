-- What is left of a subscription's rate: a token bucket. Append-only; the row with the highest number counts, so that a look-up never
-- meets the dead rows of those before it. Written by a pull that hands something out.
CREATE TABLE outbox.allowance (
    subscription_id int NOT NULL REFERENCES outbox.subscription (id) ON DELETE CASCADE,
    number bigint NOT NULL,
    tokens float8 NOT NULL,
    counted_at timestamptz NOT NULL,
    PRIMARY KEY (subscription_id, number)
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON COLUMN outbox.allowance.tokens IS 'Messages that might be handed out at counted_at; below zero after redeliveries beyond it.';
