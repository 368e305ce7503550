-- The retention classes: for how long each keeps messages at least, how large it may become and is, with its indexes, and how
-- many of its slots hold something.
CREATE VIEW outbox.kept AS
SELECT r.name, r.description, r.slot_width * (r.slots - 2) AS keep, r.max_bytes, leaves.bytes, r.slots, leaves.filled,
       (SELECT count(*) FROM outbox.topic t WHERE t.retention = r.name) AS topics, leaves.unlogged, r.first_slot
FROM outbox.retention r
CROSS JOIN LATERAL (
    SELECT sum(pg_total_relation_size(c.oid))::bigint AS bytes, count(*) FILTER (WHERE pg_relation_size(c.oid) > 0) AS filled,
           bool_or(c.relpersistence = 'u') AS unlogged
    FROM generate_series(r.first_slot, r.first_slot + r.slots - 1) AS s
    JOIN pg_class c ON c.oid = to_regclass(format('outbox.message_%s', s))
) AS leaves;
