-- Lets a new subscription read what a query finds, as messages of a topic with the header outbox-backfill, and then the topic itself:
-- under one snapshot, so that a row and the messages of those who changed it leave no gap and don't overlap. The query has the
-- columns key (text) and payload (json), and runs with the caller's rights. Returns how many rows there were. In a REPEATABLE READ
-- transaction that has written nothing; publishers don't wait.
CREATE FUNCTION outbox.backfill(subscription text, topic text, query text) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    target int := outbox.start_backfill(backfill.subscription, backfill.topic);
    row record;
    keys text[] := '{}';
    payloads json[] := '{}';
    total bigint := 0;
BEGIN
    FOR row IN EXECUTE format('SELECT q.key::text AS key, q.payload::json AS payload FROM (%s) AS q', backfill.query) LOOP
        IF row.payload IS NULL THEN
            RAISE EXCEPTION 'the query of the backfill has no payload in row %, key %', total + cardinality(keys) + 1, row.key
                USING ERRCODE = 'OB007', HINT = 'payload must not be null: to_json(t) makes one of a row t.';
        END IF;
        keys := keys || row.key;
        payloads := payloads || row.payload;
        IF cardinality(keys) = 1000 THEN
            PERFORM outbox.add_to_backfill(target, keys, payloads);
            total := total + 1000;
            keys := '{}';
            payloads := '{}';
        END IF;
    END LOOP;
    PERFORM outbox.add_to_backfill(target, keys, payloads);
    RETURN total + cardinality(keys);
END $$;
