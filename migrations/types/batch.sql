-- Messages of one partition in the hands of one worker, under one lease: what pull_batches returns. The arrays are of one length,
-- in the order of the offsets; NULL where no message has such a thing. history is that of a redelivered lease's only message.
CREATE TYPE outbox.batch AS (
    lease_id bigint,
    attempt smallint,
    redelivered boolean,
    topic text,
    partition smallint,
    priority smallint,
    partition_id int,
    offsets bigint[],
    published_at timestamptz[],
    keys text[],
    headers jsonb[],
    payloads json[],
    bodies bytea[],
    history jsonb,
    again_in float8
);

COMMENT ON COLUMN outbox.batch.again_in IS
    'Of a row without messages, the last one: there is, or may be, more to pull, in so many seconds.';
