-- A retention class: a ring of slots of the log that its topics write, and how much time one slot spans. What is kept for
-- (slots - 2) * slot_width at least: a slot goes when all that can be in it is older. See set_retention.
CREATE TABLE outbox.retention (
    name text PRIMARY KEY,
    description text NOT NULL,
    first_slot smallint NOT NULL CHECK (first_slot >= 0),
    slots smallint NOT NULL CHECK (slots >= 3),
    slot_width interval NOT NULL CHECK (slot_width >= interval '1 second'),
    max_bytes bigint CHECK (max_bytes > 0),
    changed_at timestamptz NOT NULL DEFAULT '-infinity'
);

COMMENT ON COLUMN outbox.retention.max_bytes IS
    'When its slots are larger than this together, with their indexes, the oldest go before their time. NULL: no limit.';

COMMENT ON COLUMN outbox.retention.changed_at IS
    'Since when slot_width is what it is: what was written before lies in slots by another one.';

INSERT INTO outbox.retention (name, description, first_slot, slots, slot_width)
VALUES ('standard', 'for most topics', 0, 8, interval '1 day'),
       ('short', 'for what is of no use tomorrow', 8, 4, interval '12 hours'),
       ('transient', 'not in the write-ahead log: faster, and gone when the server crashes', 12, 4, interval '30 minutes'),
       ('long', 'for what is read again: history, audits', 16, 8, interval '15 days');
