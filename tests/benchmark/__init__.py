"""First measurements: what outbox costs beside hand-written SQL that does the same, in one run."""
