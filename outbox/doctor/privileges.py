"""Who may do what: our roles have what they need, and nobody gets round our functions."""

from __future__ import annotations

from outbox.doctor.finding import Check, Finding, Limits, warning
from outbox.operations import Operation, Statement


def _missing_grants(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_MISSING_GRANTS)
    return [
        warning(
            "grants",
            f"{role} lacks {count} privileges that it needs, the first: {first}",
            "`SELECT outbox.grant_roles()`, as the owner of the schema",
            role=role,
            missing=count,
        )
        for role, count, first in rows
    ]


def _public(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_PUBLIC)
    return [
        warning(
            "public-functions",
            f"everybody may execute {count} functions of the schema outbox, the first: {first}",
            "`REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC`",
            functions=count,
        )
        for count, first in rows
        if count
    ]


def _search_path(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_SEARCH_PATH)
    return [
        warning(
            "search-path",
            f"{function} runs with its owner's privileges and its caller's search_path: a caller can slip it "
            "objects of their own",
            f"`ALTER FUNCTION {function} SET search_path = pg_catalog, pg_temp`",
            function=function,
        )
        for (function,) in rows
    ]


def _direct_insert(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_DIRECT_INSERT)
    return [
        warning(
            "direct-insert",
            f"{role} may INSERT into {tables}, past outbox.publish(): a row whose offset was drawn before its "
            "xid can be lost",
            f"`REVOKE INSERT ON {tables} FROM {role}`, and GRANT outbox_publisher instead",
            role=role,
            tables=tables.split(", "),
        )
        for role, tables in rows
    ]


def _triggers(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_TRIGGERS)
    return [
        warning(
            "message-trigger",
            f"the {kind} {name} on {table} runs in every publish: it slows business transactions down, and "
            "can break them",
            f"`DROP {kind.upper()} {name} ON {table}`; subscribe to the topic instead",
            table=table,
            name=name,
        )
        for kind, name, table in rows
    ]


#: has_*_privilege raises for a role that does not exist: CASE keeps it from being asked.
_MISSING_GRANTS = """
SELECT m.role, count(*), min(m.privilege || ' on ' || m.object)
FROM (
    SELECT n.role, n.object, p.privilege,
           CASE WHEN to_regrole(n.role) IS NULL THEN true
                WHEN n.kind = 'SCHEMA' THEN has_schema_privilege(n.role::name, n.object, p.privilege)
                WHEN n.kind = 'FUNCTION' THEN has_function_privilege(n.role::name, n.object, p.privilege)
                WHEN n.columns IS NULL THEN has_table_privilege(n.role::name, n.object, p.privilege)
                ELSE (SELECT bool_and(has_column_privilege(n.role::name, n.object, c.name, p.privilege))
                      FROM unnest(n.columns) AS c (name)) END AS given
    FROM outbox.needed_grants() n
    CROSS JOIN LATERAL unnest(string_to_array(n.privileges, ', ')) AS p (privilege)
) AS m
WHERE NOT m.given
GROUP BY m.role ORDER BY m.role
"""

_PUBLIC = """
SELECT count(*), min(p.oid::regprocedure::text)
FROM pg_proc p
WHERE p.pronamespace = 'outbox'::regnamespace AND EXISTS (
    SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
    WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE')
"""

_SEARCH_PATH = """
SELECT p.oid::regprocedure::text
FROM pg_proc p
WHERE p.pronamespace = 'outbox'::regnamespace AND p.prosecdef
  AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS s (setting) WHERE starts_with(s.setting, 'search_path='))
ORDER BY 1
"""

#: The log and its leaves: privileges on the table, or on columns of it.
_DIRECT_INSERT = """
SELECT i.role, string_agg(i.leaf, ', ' ORDER BY i.leaf) FROM (
    SELECT DISTINCT leaf.relid::regclass::text AS leaf,
           CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
    FROM pg_partition_tree('outbox.message') AS leaf
    JOIN pg_class c ON c.oid = leaf.relid
    CROSS JOIN LATERAL (
        SELECT * FROM aclexplode(c.relacl)
        UNION ALL
        SELECT own.* FROM pg_attribute t CROSS JOIN LATERAL aclexplode(t.attacl) AS own
        WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL
    ) AS a
    WHERE a.privilege_type = 'INSERT' AND a.grantee <> c.relowner
      AND a.grantee IS DISTINCT FROM to_regrole('outbox_admin')::oid
) AS i
GROUP BY i.role ORDER BY i.role
"""

_TRIGGERS = """
SELECT 'trigger', quote_ident(t.tgname), t.tgrelid::regclass::text
FROM pg_trigger t
WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgrelid IN (SELECT relid FROM pg_partition_tree('outbox.message'))
UNION ALL
SELECT 'rule', quote_ident(r.rulename), r.ev_class::regclass::text
FROM pg_rewrite r
WHERE r.ev_class IN (SELECT relid FROM pg_partition_tree('outbox.message'))
ORDER BY 1, 3, 2
"""

CHECKS = (
    Check("grants", "our roles have what they need, as far as they exist", _missing_grants),
    Check("public-functions", "no function is everybody's", _public),
    Check("search-path", "every SECURITY DEFINER function has a search_path", _search_path),
    Check("direct-insert", "nobody may publish past outbox.publish()", _direct_insert),
    Check("message-trigger", "no trigger or rule is on the log", _triggers),
)
