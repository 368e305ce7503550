-- A reader of the log: RabbitMQ's queue, Kafka's consumer group. Static: written when it is declared.
CREATE TABLE outbox.subscription (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
        CHECK (name ~ '^[A-Za-z0-9_.-]+$' AND length(name) <= 255),
    guarantee text NOT NULL
        CHECK (guarantee IN ('at-most-once', 'at-least-once', 'exactly-once')),
    max_attempts smallint NOT NULL CHECK (max_attempts BETWEEN 1 AND 32766),
    on_failure text CHECK (on_failure IN ('block', 'park', 'dead-letter')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    paused_at timestamptz,
    is_filtered boolean NOT NULL DEFAULT false,
    -- what configure() sets
    ttl interval CHECK (ttl > interval '0'),
    expired text NOT NULL DEFAULT 'drop' CHECK (expired IN ('drop', 'dead-letter')),
    rate float8 CHECK (rate > 0 AND rate < 'infinity'),
    burst int CHECK (burst > 0),
    max_backlog bigint CHECK (max_backlog > 0),
    overflow text NOT NULL DEFAULT 'drop-oldest' CHECK (overflow IN ('drop-oldest', 'reject-publish')),
    backlog text NOT NULL DEFAULT 'hold' CHECK (backlog IN ('hold', 'expire')),
    exclusive boolean NOT NULL DEFAULT false,
    fair boolean NOT NULL DEFAULT false,
    ageing interval NOT NULL DEFAULT interval '1 minute' CHECK (ageing >= interval '0'),
    dead_letter_topic text,
    dead_letter_ttl interval CHECK (dead_letter_ttl > interval '0'),
    CHECK (on_failure IS NULL OR guarantee <> 'at-most-once'),
    CONSTRAINT who_rejects_holds CHECK (backlog = 'hold' OR max_backlog IS NULL OR overflow <> 'reject-publish'),
    CONSTRAINT fair_has_no_order CHECK (NOT fair OR on_failure IS NULL AND guarantee <> 'at-most-once')
);

COMMENT ON COLUMN outbox.subscription.max_attempts IS
    'The attempt that is a message''s last: when it fails, or its worker dies in it, the message becomes a dead letter.';

COMMENT ON COLUMN outbox.subscription.on_failure IS
    'NULL: unordered. Otherwise one batch of a partition is in flight at a time, in order, and a message that fails blocks its
partition, parks its key, or becomes a dead letter at once.';

COMMENT ON COLUMN outbox.subscription.paused_at IS 'Since then pulls return nothing. NULL: it is not paused.';

COMMENT ON COLUMN outbox.subscription.is_filtered IS 'Has it a binding with conditions? Kept by note_bindings().';

COMMENT ON COLUMN outbox.subscription.ttl IS 'Messages older than this, since publish, are not delivered any more. NULL: for ever.';

COMMENT ON COLUMN outbox.subscription.expired IS 'What becomes of messages that are too old: "drop", or "dead-letter".';

COMMENT ON COLUMN outbox.subscription.rate IS 'Messages a second that are handed out at most, to all workers together.';

COMMENT ON COLUMN outbox.subscription.burst IS 'Messages that may be handed out at once after a pause. NULL: those of a second, one at least.';

COMMENT ON COLUMN outbox.subscription.max_backlog IS 'Messages that may wait in the log. "overflow" says what happens beyond.';

COMMENT ON COLUMN outbox.subscription.overflow IS
    '"drop-oldest": the oldest are passed over; "reject-publish": a publish to a topic that it reads is an error (OB008).';

COMMENT ON COLUMN outbox.subscription.backlog IS
    'What it has not taken when its retention is over: "hold": the log keeps it; "expire": it goes, and is counted in outbox.loss.';

COMMENT ON COLUMN outbox.subscription.exclusive IS 'One worker at a time gets messages; when it ends or dies, another does.';

COMMENT ON COLUMN outbox.subscription.fair IS 'Keys take turns: many messages of one key don''t hold up those of the others.';

COMMENT ON COLUMN outbox.subscription.ageing IS
    'A message that waited so long behind higher priorities gets a share of the pulls.';

COMMENT ON COLUMN outbox.subscription.dead_letter_topic IS
    'Messages that are given up on are published there. NULL: they are kept in outbox.dead_letter.';

COMMENT ON COLUMN outbox.subscription.dead_letter_ttl IS 'Dead letters older than this, since they died, are deleted. NULL: never.';
