-- An ordered sub-log of a topic, with an offset sequence of its own. Static.
-- Each priority is a sub-log too, so that a flood of low priority never stands before a high one.
CREATE TABLE outbox.partition (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic_id int NOT NULL REFERENCES outbox.topic (id),
    number smallint NOT NULL,
    priority smallint NOT NULL,
    sequence regclass NOT NULL,
    UNIQUE (topic_id, priority, number)
);

COMMENT ON COLUMN outbox.partition.priority IS 'The higher number is delivered first.';

COMMENT ON COLUMN outbox.partition.sequence IS
    'Where offsets come from. CACHE 1 always: a cached offset could be drawn before its transaction''s xid.';
