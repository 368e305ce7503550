-- The row that says that there may be more to pull, in so many seconds. Internal: see pull_batches.
CREATE FUNCTION outbox.again_in(seconds float8) RETURNS outbox.batch
LANGUAGE sql IMMUTABLE
RETURN ROW (NULL, 0, false, '', 0, 0, 0, '{}', '{}', NULL, NULL, NULL, NULL, NULL, seconds)::outbox.batch;
