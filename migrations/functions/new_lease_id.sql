-- The id of a new lease. Partly by chance: a crash may take back what the sequence gave to pulls whose commit did not wait for the
-- disk, and a worker that still knows such a lease must not settle another by its number.
CREATE FUNCTION outbox.new_lease_id() RETURNS bigint
LANGUAGE sql VOLATILE
RETURN nextval('outbox.lease_id_seq') * 1048576 + floor(random() * 1048576)::bigint;
