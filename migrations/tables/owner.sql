-- Which worker an exclusive subscription hands its messages to. Changes when that worker has ended or died.
CREATE TABLE outbox.owner (
    subscription_id int PRIMARY KEY REFERENCES outbox.subscription (id) ON DELETE CASCADE,
    worker_id bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
