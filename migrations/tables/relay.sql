-- How a relay or source stands in a process that runs it, as that process last said; for people, nothing is decided by it.
CREATE TABLE outbox.relay (
    name text NOT NULL,
    process text NOT NULL,
    target text NOT NULL,
    state text NOT NULL CHECK (state IN ('closed', 'open', 'half-open', 'disabled')),
    reason text,
    since timestamptz NOT NULL,
    delivered bigint NOT NULL,
    failed bigint NOT NULL,
    noted_at timestamptz NOT NULL,
    PRIMARY KEY (name, process)
) WITH (fillfactor = 50);

COMMENT ON COLUMN outbox.relay.state IS
    'Of its circuit: closed, messages flow. Open, the other side is away, and nothing is tried until a pause is over.
Half-open, one message is being tried. Disabled, the other side wants no more.';
