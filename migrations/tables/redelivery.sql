-- One message waiting for another try, or being tried again (lease_id set). It holds a copy of the message,
-- so that it never pins the log.
CREATE TABLE outbox.redelivery (
    subscription_id int NOT NULL,
    partition_id int NOT NULL,
    "offset" bigint NOT NULL,
    attempt smallint NOT NULL,
    due_at timestamptz NOT NULL,
    lease_id bigint,
    suspect boolean NOT NULL DEFAULT false,
    lane text,
    published_at timestamptz NOT NULL,
    key text,
    headers jsonb,
    payload json,
    body bytea,
    expires_at timestamptz,
    errors jsonb NOT NULL DEFAULT '[]',
    PRIMARY KEY (subscription_id, partition_id, "offset")
) WITH (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON COLUMN outbox.redelivery.attempt IS 'The number of the next try, or of the one under way: the first is 1.';

COMMENT ON COLUMN outbox.redelivery.suspect IS
    'A worker died while it held this message: it is handed out with no other suspect, to find the guilty one.';

COMMENT ON COLUMN outbox.redelivery.lane IS
    'Of an ordered subscription: what must stay in order. Its key, if failures park the key (none: nothing), else the partition
(an empty text). The lowest offset of a lane is due at its time, the others at infinity, until their turn comes.';

COMMENT ON COLUMN outbox.redelivery.expires_at IS
    'From then on it is not tried any more. NULL: as long as the subscription wants; infinity: for ever, since it was redriven.';

-- what is due: subscription_id = ? AND suspect = ? AND due_at <= ? ORDER BY due_at, partition_id, "offset"
CREATE INDEX redelivery_due ON outbox.redelivery (subscription_id, suspect, due_at, partition_id, "offset")
    WHERE lease_id IS NULL;

-- who is next in a lane? is it empty?
CREATE INDEX redelivery_lane ON outbox.redelivery (subscription_id, partition_id, lane, "offset") WHERE lane IS NOT NULL;
