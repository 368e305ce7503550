-- Up to where a source has read a partition of another log: the newest row counts. Append-only, as positions are.
CREATE TABLE outbox.source_position (
    source text NOT NULL,
    partition text NOT NULL,
    "offset" bigint NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    begun smallint NOT NULL DEFAULT 1,
    PRIMARY KEY (source, partition, "offset")
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

COMMENT ON COLUMN outbox.source_position."offset" IS 'The first offset there that is not published here.';

COMMENT ON COLUMN outbox.source_position.begun IS
    'Of a feed: how many have begun to read here and not ended in order. Two who died here leave it above 2 to the third.';
