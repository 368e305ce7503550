-- A message to come: published at its time by whichever worker looks first, and deleted in the same transaction.
-- Exactly one of payload (JSON) and body (raw bytes, with a content-type header) is set.
CREATE TABLE outbox.scheduled (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    due_at timestamptz NOT NULL CHECK (isfinite(due_at)),
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    key text,
    headers jsonb,
    payload json,
    body bytea,
    ttl interval CHECK (ttl > interval '0'),
    idempotency_key text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    schedule text,
    attempts smallint NOT NULL DEFAULT 0,
    error text,
    CHECK ((payload IS NULL) <> (body IS NULL))
) WITH (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

COMMENT ON COLUMN outbox.scheduled.priority IS '0 to 9, the higher is delivered first.';

COMMENT ON COLUMN outbox.scheduled.ttl IS 'How long it is delivered, counted from its publication. NULL: for ever.';

COMMENT ON COLUMN outbox.scheduled.idempotency_key IS 'What the publish gets at its time: the topic''s window counts from then.';

COMMENT ON COLUMN outbox.scheduled.schedule IS 'The schedule whose tick it is. NULL: it was published with a delay.';

COMMENT ON COLUMN outbox.scheduled.attempts IS 'How often publishing it failed; each time due_at moves on: 5 s, 10 s, … 5 minutes.';

COMMENT ON COLUMN outbox.scheduled.error IS 'Why publishing it failed the last time.';

-- what is due: due_at > ? AND due_at <= ? ORDER BY due_at, id; when the next is
CREATE INDEX scheduled_due ON outbox.scheduled (due_at, id);
