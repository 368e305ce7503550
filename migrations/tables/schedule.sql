-- A message that is published again and again: at the times of a cron expression, or after each interval.
-- Static: written when it is declared, changed or paused; where it stands is in outbox.tick.
CREATE TABLE outbox.schedule (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
        CHECK (name ~ '^[A-Za-z0-9_.-]+$' AND length(name) <= 255),
    cron text,
    every interval CHECK (every >= interval '1 second'),
    timezone text NOT NULL,
    topic text NOT NULL,
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    key text,
    headers jsonb,
    payload json,
    body bytea,
    ttl interval CHECK (ttl > interval '0'),
    missed text NOT NULL CHECK (missed IN ('skip', 'one', 'all')),
    revision int NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    paused_at timestamptz,
    error text,
    CHECK ((cron IS NULL) <> (every IS NULL)),
    CHECK ((payload IS NULL) <> (body IS NULL))
);

COMMENT ON COLUMN outbox.schedule.cron IS
    'Five fields (minute hour day month weekday) or six (second first). Workers compute the ticks, in the time zone.';

COMMENT ON COLUMN outbox.schedule.missed IS
    'What becomes of ticks that are more than 60 s late, since no worker ran: "skip": nothing; "one": one message for all of
them; "all": one for each.';

COMMENT ON COLUMN outbox.schedule.revision IS 'Counts changes: a tick that was computed before one is not published.';

COMMENT ON COLUMN outbox.schedule.paused_at IS 'Since then it does not tick. NULL: it is not paused.';

COMMENT ON COLUMN outbox.schedule.error IS 'Why a worker could not compute its next tick.';
