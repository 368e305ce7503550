-- A named stream. Static: written when it is declared or first published to.
CREATE TABLE outbox.topic (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
        CHECK (name ~ '^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$' AND length(name) <= 255),
    partitions smallint NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    generation smallint NOT NULL DEFAULT 1,
    max_priority smallint NOT NULL CHECK (max_priority BETWEEN 0 AND 9),
    retention text NOT NULL REFERENCES outbox.retention (name),
    compact boolean NOT NULL DEFAULT false,
    deduplication_window interval NOT NULL DEFAULT interval '7 days'
        CHECK (deduplication_window BETWEEN interval '1 second' AND interval '28 days'),
    guards int[],
    homes int[],
    sequences regclass[],
    first_slot smallint,
    slots smallint,
    slot_width interval,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON COLUMN outbox.topic.max_priority IS
    'Priorities 0 to max_priority, as RabbitMQ''s x-max-priority: the higher number is delivered first.';

COMMENT ON COLUMN outbox.topic.compact IS
    'The newest message of each key is kept for ever: it is carried forward when its slot is emptied. A JSON null ends a key.';

COMMENT ON COLUMN outbox.topic.deduplication_window IS
    'For how long a publish with the idempotency key of an earlier one stores nothing, from the earlier one on.';

COMMENT ON COLUMN outbox.topic.guards IS
    'Subscriptions that read it and whose full backlog rejects a publish. NULL: none. Kept by note_bindings().';

COMMENT ON COLUMN outbox.topic.homes IS
    'The partitions that are written, priority after priority: all that a publish must know lies in one row. Kept by note_homes().';

COMMENT ON COLUMN outbox.topic.sequences IS 'Those of the homes.';

COMMENT ON COLUMN outbox.topic.slot_width IS 'With first_slot and slots, as its retention class has them. Kept by note_slots().';
