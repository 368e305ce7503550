-- Publishes what a statement did to a captured table, in its transaction: the trigger function of all captures. Arguments: topic,
-- columns (empty: all), key (empty: the primary key; {}: none). Of an UPDATE the nth old row became the nth new one. Where keys
-- change there is a second pass: old keys go before new ones come. The settings make rows, and keys, alike in every session.
CREATE FUNCTION outbox.publish_changes() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET intervalstyle = 'postgres'
SET bytea_output = 'hex'
SET extra_float_digits = 1
AS $$
DECLARE
    name text := TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME;
    columns text[] := nullif(TG_ARGV[1], '');
    key text[] := nullif(TG_ARGV[2], '');
    plain_key text[] := CASE WHEN columns IS NULL AND TG_OP <> 'TRUNCATE' THEN outbox.plain_key(TG_RELID, key) END;
    is_single boolean := cardinality(plain_key) = 1;
    rows_of text[];
    olds refcursor;
    news refcursor;
    old_row json;
    new_row json;
    old_key text;
    new_key text;
    nth bigint;
    first_moved bigint;  -- the first row whose key changed
    operation text := lower(TG_OP);
    operations text[] := '{}';
    keys text[] := '{}';
    befores json[] := '{}';
    afters json[] := '{}';
    size bigint := 0;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM outbox.publish_rows(name, TG_ARGV[0], '{truncate}', NULL, NULL, NULL);
        RETURN NULL;
    END IF;
    IF plain_key IS NULL THEN
        rows_of := outbox.rows_of(TG_RELID, columns, key);
    END IF;
    FOR pass IN 1..2 LOOP
        IF TG_OP = 'INSERT' THEN
            NULL;
        ELSIF plain_key IS NULL THEN
            OPEN olds FOR EXECUTE array_to_string(rows_of, 'outbox_old');
        ELSE
            OPEN olds FOR
            SELECT r.row, CASE WHEN is_single THEN r.row ->> plain_key[1] ELSE outbox.key_of_row(r.row, plain_key) END
            FROM (SELECT row_to_json(o.*) AS row FROM outbox_old o OFFSET 0) AS r;
        END IF;
        IF TG_OP = 'DELETE' THEN
            NULL;
        ELSIF plain_key IS NULL THEN
            OPEN news FOR EXECUTE array_to_string(rows_of, 'outbox_new');
        ELSE
            OPEN news FOR
            SELECT r.row, CASE WHEN is_single THEN r.row ->> plain_key[1] ELSE outbox.key_of_row(r.row, plain_key) END
            FROM (SELECT row_to_json(n.*) AS row FROM outbox_new n OFFSET 0) AS r;
        END IF;
        nth := 0;
        LOOP
            IF TG_OP <> 'INSERT' THEN
                FETCH olds INTO old_row, old_key;
            END IF;
            IF TG_OP <> 'DELETE' THEN
                FETCH news INTO new_row, new_key;
            END IF;
            EXIT WHEN old_row IS NULL AND new_row IS NULL;
            nth := nth + 1;
            IF TG_OP = 'UPDATE' THEN
                IF old_key IS DISTINCT FROM new_key OR old_row IS NULL OR new_row IS NULL THEN
                    first_moved := coalesce(first_moved, nth);
                    operation := CASE pass WHEN 1 THEN 'delete' ELSE 'insert' END;
                    CONTINUE WHEN CASE pass WHEN 1 THEN old_row ELSE new_row END IS NULL;
                ELSE
                    CONTINUE WHEN old_row::text = new_row::text OR (pass = 1) <> (first_moved IS NULL OR nth < first_moved);
                    operation := 'update';
                END IF;
            END IF;
            operations := array_append(operations, operation);
            keys := array_append(keys, CASE operation WHEN 'delete' THEN old_key ELSE new_key END);
            befores := array_append(befores, CASE operation WHEN 'insert' THEN NULL ELSE old_row END);
            afters := array_append(afters, CASE operation WHEN 'delete' THEN NULL ELSE new_row END);
            size := size + coalesce(octet_length(old_row::text), 0) + coalesce(octet_length(new_row::text), 0);
            IF cardinality(keys) = 1000 OR size > 4194304 THEN
                PERFORM outbox.publish_rows(name, TG_ARGV[0], operations, keys, befores, afters);
                operations := '{}'; keys := '{}'; befores := '{}'; afters := '{}'; size := 0;
            END IF;
        END LOOP;
        EXIT WHEN first_moved IS NULL;
        CLOSE olds;
        CLOSE news;
    END LOOP;
    PERFORM outbox.publish_rows(name, TG_ARGV[0], operations, keys, befores, afters);
    RETURN NULL;
END $$;
