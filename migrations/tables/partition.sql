-- An ordered sub-log of a topic, with an offset sequence of its own. Static.
-- Each priority is a sub-log too, so that a flood of low priority never stands before a high one. When a topic is altered its next
-- messages go to a new generation of partitions, and the partitions before are only read any more.
CREATE TABLE outbox.partition (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic_id int NOT NULL REFERENCES outbox.topic (id),
    number smallint NOT NULL,
    priority smallint NOT NULL,
    generation smallint NOT NULL,
    retention text NOT NULL REFERENCES outbox.retention (name),
    first_slot smallint NOT NULL,
    last_slot smallint NOT NULL,
    backfill_for int,
    sequence regclass NOT NULL,
    UNIQUE NULLS NOT DISTINCT (topic_id, priority, number, generation, backfill_for)
);

COMMENT ON COLUMN outbox.partition.priority IS 'The higher number is delivered first.';

COMMENT ON COLUMN outbox.partition.generation IS
    'Publishers write that of the topic. A subscription reads one when it has read all of those before.';

COMMENT ON COLUMN outbox.partition.retention IS 'The class whose slots its messages are in: that of the topic when it was created.';

COMMENT ON COLUMN outbox.partition.first_slot IS 'With last_slot: where its messages may lie, so that a read looks nowhere else.';

COMMENT ON COLUMN outbox.partition.backfill_for IS
    'The subscription for which rows were put into the log that were there before it (generation 0). NULL: everybody may read it.';

COMMENT ON COLUMN outbox.partition.sequence IS
    'Where offsets come from. CACHE 1 always: a cached offset could be drawn before its transaction''s xid.';

-- are there any of several priorities? (asked where a pull has found many partitions)
CREATE INDEX partition_prioritised ON outbox.partition (id) WHERE priority > 0;
