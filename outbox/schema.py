"""Add outbox's tables to a database, and check that they are there.

Three ways, from one source of DDL: `migrate` (what `outbox migrate` does), `upgrade` and `downgrade` inside a
revision of your own Alembic history, and `sql` (what `outbox migrate --sql` prints).
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from outbox import ddl
from outbox.errors import InvalidDeclaration

if TYPE_CHECKING:
    from alembic.script import Script

#: The advisory lock that keeps two migrations apart: "outbox" in ASCII, and 65.
_MIGRATION_LOCK = 8031453476610899968 + 65

_VERSION_TABLE = (
    "CREATE TABLE IF NOT EXISTS outbox.alembic_version "
    "(version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)


def migrate(connection: sqlalchemy.Connection, to: str = "head") -> None:
    """Bring the schema to a version: "head", "base" (nothing of ours left), or a revision.

    Commits the connection. All or nothing: a failure leaves the database as it was. Concurrent calls take turns.
    """
    with connection.begin():
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        connection.execute(sqlalchemy.text(ddl.CREATE_SCHEMA))
        config = _config()
        config.attributes["connection"] = connection
        _move(config, connection, to)
        if to == "base":
            connection.execute(sqlalchemy.text("DROP SCHEMA outbox CASCADE"))


def upgrade(to: str = "head", since: str = "base") -> None:
    """Create our tables inside a revision of your own Alembic history, online or with `--sql`.

    Runs in the revision's transaction. `since` is the version that an earlier revision of yours went to.
    """
    if since == "base":
        ddl.execute(ddl.CREATE_SCHEMA)
        ddl.execute(_VERSION_TABLE)
    for revision in _between(since, to):
        revision.module.upgrade()
    _note_version(_resolve(to))


def downgrade(since: str = "head", to: str = "base") -> None:
    """Undo `upgrade(to=since, since=to)`, in the revision's transaction; to "base" leaves nothing of ours."""
    for revision in reversed(_between(to, since)):
        revision.module.downgrade()
    if to == "base":
        ddl.execute("DROP SCHEMA outbox CASCADE")
    else:
        _note_version(_resolve(to))


def sql(to: str = "head", since: str = "base") -> str:
    """Return the plain SQL that brings the schema from one version to another, up or down, for psql to run.

    Raises:
        InvalidDeclaration: there is no such version.
    """
    text, config = io.StringIO(), _config()
    _resolve(to), _resolve(since)
    config.output_buffer = text
    down = to == "base" or (since != "base" and _resolve(to) < _resolve(since))
    with redirect_stdout(text):
        if down:
            command.downgrade(config, f"{'head' if since == 'base' else since}:{to}", sql=True)
        else:
            command.upgrade(config, f"{since}:{to}", sql=True)
    return text.getvalue() + ("\nDROP SCHEMA outbox CASCADE;\n" if to == "base" else "")


def install_inbox(connection: sqlalchemy.Connection) -> None:
    """Add what `outbox.once` needs to a database that has no outbox, in a schema of its own; again changes nothing.

    Commits the connection.
    """
    with connection.begin():
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        for statement in _inbox_statements():
            connection.execute(sqlalchemy.DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]


def inbox_sql() -> str:
    """Return the plain SQL of `install_inbox`, for psql to run."""
    return "".join(f"{statement};\n\n" for statement in ("BEGIN", *_inbox_statements(), "COMMIT"))


def _inbox_statements() -> list[str]:
    found = [ddl.CREATE_SCHEMA]
    for kind, name in ddl.INBOX:
        found += ddl.statements((ddl.MIGRATIONS / kind / f"{name}.sql").read_text())
    return [*found, "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC"]


def create_roles(connection: sqlalchemy.Connection) -> list[str]:
    """Create the roles outbox_publisher, _worker, _monitor, _reader and _admin, and grant them what they need.

    Commits the connection, which must be the owner's of the schema, with CREATEROLE. Returns the roles.
    """
    with connection.begin():
        granted: list[str] = (
            connection.scalar(sqlalchemy.text("SELECT outbox.grant_roles(create_missing => true)")) or []
        )
    return granted


def _move(config: Config, connection: sqlalchemy.Connection, to: str) -> None:
    rank = [*("base",), *(revision.revision for revision in _between("base", "head"))]
    installed = _installed(connection) or "base"
    target = _resolve(to)
    if installed not in rank:  # a newer package was here: not ours to touch
        return
    move = command.upgrade if rank.index(target) >= rank.index(installed) else command.downgrade
    move(config, target)


def _installed(connection: sqlalchemy.Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("alembic_version", schema=ddl.SCHEMA):
        return None
    found: str | None = connection.scalar(sqlalchemy.text("SELECT version_num FROM outbox.alembic_version"))
    return found


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(ddl.MIGRATIONS).replace("%", "%%"))
    return config


def _between(since: str, to: str) -> list[Script]:
    """The revisions after `since` up to `to`, oldest first."""
    script = ScriptDirectory.from_config(_config())
    return [r for r in reversed(list(script.walk_revisions(since, to))) if r.revision != since]


def _resolve(version: str) -> str:
    if version == "base":
        return version
    try:
        return str(ScriptDirectory.from_config(_config()).get_revision(version).revision)
    except CommandError as error:
        raise InvalidDeclaration(f"there is no version {version!r} of the schema: head, base, or a number") from error


def _note_version(version: str) -> None:
    ddl.execute("DELETE FROM outbox.alembic_version")
    ddl.execute(f"INSERT INTO outbox.alembic_version (version_num) VALUES ('{version}')")
