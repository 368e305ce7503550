-- A retention class: which slots of the ring its topics write, and how much time one slot spans.
-- History is kept for (slots - 2) * slot_width at least: the slot that is written next is emptied before.
CREATE TABLE outbox.retention (
    name text PRIMARY KEY,
    first_slot smallint NOT NULL CHECK (first_slot >= 0),
    slots smallint NOT NULL CHECK (slots >= 3),
    slot_width interval NOT NULL CHECK (slot_width >= interval '1 second')
);

INSERT INTO outbox.retention (name, first_slot, slots, slot_width)
VALUES ('standard', 0, 8, interval '1 day');
