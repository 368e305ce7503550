"""Is our schema there, of this version, and may we look into it?"""

from __future__ import annotations

from outbox import version
from outbox.doctor.finding import Check, Finding, Limits, critical, warning
from outbox.operations import Operation, Statement


def hindrance() -> Operation[str | None]:
    """Why nothing can be looked at with this user, or None."""
    rows = yield Statement(_USAGE)
    user, may_use, may_ask = rows[0]
    if may_use is False or may_ask is False:
        return (
            f"{user} has no privileges on the schema outbox: GRANT outbox_monitor TO {user}, after outbox.grant_roles()"
        )
    return None


def _look(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement("SELECT to_regprocedure('outbox.schema_version()') IS NOT NULL")
    installed = None
    if rows[0][0]:
        rows = yield Statement("SELECT outbox.schema_version()")
        installed = rows[0][0]
    return find(installed)


def find(installed: str | None) -> list[Finding]:
    """What there is to say about an installed version (None: nothing is installed)."""
    if version.problem(installed):
        have = f"is at version {installed}" if installed else "is missing"
        what = f"the schema outbox {have}, version {version.SCHEMA_VERSION} is needed"
        return [critical("schema", what, "run `outbox migrate`", installed=installed, needed=version.SCHEMA_VERSION)]
    if installed is not None and installed > version.SCHEMA_VERSION:
        what = (
            f"the schema outbox is at version {installed}, newer than this package, which knows "
            f"{version.SCHEMA_VERSION}"
        )
        mend = "bring the package up to date: `pip install --upgrade outbox-pg`"
        return [warning("schema", what, mend, installed=installed, needed=version.SCHEMA_VERSION)]
    return []


SCHEMA = Check("schema", f"the schema outbox is at version {version.SCHEMA_VERSION}", _look)

#: NULL: the schema, or the function, is not there.
_USAGE = """
SELECT quote_ident(current_user), has_schema_privilege(n.oid, 'USAGE'), has_function_privilege(p.oid, 'EXECUTE')
FROM (SELECT 1) AS one
LEFT JOIN pg_namespace n ON n.nspname = 'outbox'
LEFT JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = 'schema_version'
"""
