-- Up to where a source has read a partition of another log: the newest row counts. Append-only, as positions are.
CREATE TABLE outbox.source_position (
    source text NOT NULL,
    partition text NOT NULL,
    "offset" bigint NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, partition, "offset")
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

COMMENT ON COLUMN outbox.source_position."offset" IS 'The first offset there that is not published here.';
