-- Gives the roles outbox_publisher, outbox_worker, outbox_monitor, outbox_reader and outbox_admin what each needs, as far as they
-- exist; with create_missing it creates them (NOLOGIN), which needs CREATEROLE. Run it as the owner of the schema. Grant the
-- roles to your own: GRANT outbox_publisher TO shop. Returns the roles that have what they need.
CREATE FUNCTION outbox.grant_roles(create_missing boolean DEFAULT false) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
<<granting>>
DECLARE
    role text;
    needed record;
    granted text[] := '{}';
BEGIN
    FOREACH role IN ARRAY '{outbox_publisher,outbox_worker,outbox_monitor,outbox_reader,outbox_admin}'::text[] LOOP
        IF create_missing AND to_regrole(role) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
        CONTINUE WHEN to_regrole(role) IS NULL;
        FOR needed IN
            SELECT n.*, (SELECT format('(%s)', string_agg(quote_ident(c), ', ')) FROM unnest(n.columns) AS c
                         HAVING count(*) > 0) AS some
            FROM outbox.needed_grants() n WHERE n.role = granting.role
        LOOP
            EXECUTE format('GRANT %s %s ON %s %s TO %I', needed.privileges, needed.some, needed.kind, needed.object, role);
        END LOOP;
        granted := granted || role;
    END LOOP;
    RETURN granted;
END $$;
