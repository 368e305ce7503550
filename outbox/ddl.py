"""Run the SQL files of `migrations/` in whatever Alembic context is under way: ours, or a user's own."""

from pathlib import Path

import sqlalchemy
from alembic import op

SCHEMA = "outbox"
CREATE_SCHEMA = "CREATE SCHEMA IF NOT EXISTS outbox"

#: What a database needs in which only effects of consumers live: see `outbox.once`.
INBOX = [
    ("tables", "inbox"),
    *(("functions", name) for name in ("key_slot", "slot_lock", "enter_slot", "once", "truncate_slot", "rotate_keys")),
]

_package = Path(__file__).parent
#: Inside the package when it is installed, beside it in a checkout.
MIGRATIONS = _package / "migrations" if (_package / "migrations").is_dir() else _package.parent / "migrations"


def create(kind: str, name: str) -> None:
    """Create what `migrations/{kind}/{name}.sql` says, in the current migration context."""
    for statement in statements((MIGRATIONS / kind / f"{name}.sql").read_text()):
        execute(statement)


def drop_everything() -> None:
    """Drop all that the schema holds, but not the schema: Alembic's version table is in it."""
    execute(_DROP_EVERYTHING)


def execute(statement: str) -> None:
    """Run one statement as it stands: neither `%` nor `:name` means anything in it."""
    ddl = sqlalchemy.DDL(statement.replace("%", "%%"))  # type: ignore[no-untyped-call]  # SQLAlchemy's
    op.execute(ddl)


def statements(text: str) -> list[str]:
    """Split a file into statements, at semicolons that end a line outside of a `$$` body."""
    found: list[str] = []
    lines: list[str] = []
    in_body = False
    for line in text.strip().splitlines():
        lines.append(line)
        in_body ^= line.count("$$") % 2 == 1
        if line.endswith(";") and not in_body:
            found.append("\n".join(lines).strip().removesuffix(";"))
            lines = []
    return found


_DROP_EVERYTHING = """
DO $$
DECLARE
    object record;
    function text;
BEGIN
    FOR object IN
        SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE'
                    ELSE 'TABLE' END AS kind,
               c.oid::regclass AS name
        FROM pg_class c
        WHERE c.relnamespace = 'outbox'::regnamespace AND c.relkind IN ('v', 'S', 'c', 'r', 'p')
          AND NOT c.relispartition
          AND c.relname NOT LIKE 'alembic_version%'
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass
                                                    AND d.deptype IN ('i', 'a'))
        ORDER BY c.relkind <> 'v'
    LOOP
        EXECUTE format('DROP %s IF EXISTS %s CASCADE', object.kind, object.name);
    END LOOP;
    FOREACH function IN ARRAY  -- all names first: one may go with another
        ARRAY(SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'outbox'::regnamespace)
    LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', function);
    END LOOP;
END $$
""".strip()
