-- Notes how a relay or source stands in a process; what nobody has noted for a day goes. "seconds": for how long it has been so.
CREATE FUNCTION outbox.note_relay(
    name text, process text, target text, state text, reason text, seconds float8, delivered bigint, failed bigint
) RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM outbox.relay r WHERE r.noted_at < clock_timestamp() - interval '1 day';
    INSERT INTO outbox.relay AS r (name, process, target, state, reason, since, delivered, failed, noted_at)
    VALUES (note_relay.name, note_relay.process, note_relay.target, note_relay.state, note_relay.reason,
            clock_timestamp() - make_interval(secs => seconds), note_relay.delivered, note_relay.failed, clock_timestamp())
    ON CONFLICT ON CONSTRAINT relay_pkey DO UPDATE SET
        target = excluded.target, state = excluded.state, reason = excluded.reason, since = excluded.since,
        delivered = excluded.delivered, failed = excluded.failed, noted_at = excluded.noted_at;
$$;
