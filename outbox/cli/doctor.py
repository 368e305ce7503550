"""`outbox doctor`: look whether all is well; exit codes as monitoring plugins have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, TypeVar

import psycopg
import typer
from rich.text import Text

from outbox import connection as connections
from outbox import doctor as doctor_of
from outbox.cli.options import DatabaseUrl, Json, complain, console, print_json
from outbox.database import libpq_url
from outbox.doctor import Check, Finding, Limits
from outbox.errors import OutboxError
from outbox.operations import Operation, Row, Statement

T = TypeVar("T")

_EXIT_CODES = {"ok": 0, "warning": 1, "critical": 2}
_COULD_NOT_LOOK = 3
_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "critical": ("✗", "red")}

#: Seconds that a statement may take.
_TIMEOUT = 10


def doctor(
    database_url: DatabaseUrl,
    json: Json = False,
    long_transaction: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="From when on an open transaction is a finding.")
    ] = 300,
    overdue: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="From when on a message that is due and waits is a finding.")
    ] = 60,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="Leave this check out; can be given several times.")
    ] = None,
) -> None:
    """Look whether all is well, and say what to do where it is not.

    Exit codes: 0 all is well, 1 warnings, 2 something is broken, 3 could not look. It only reads, never the content of
    messages; the privileges of [bold]outbox_monitor[/] are enough.
    """
    checks = _without(ignore or [])
    try:
        with psycopg.connect(
            libpq_url(database_url), autocommit=True, application_name="outbox doctor", prepare_threshold=None
        ) as connection:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            findings = _findings(connection, checks, Limits(long_transaction, overdue), json)
    except (psycopg.Error, OutboxError) as error:
        raise _could_not_look(str(error).strip().splitlines()[0]) from error
    raise typer.Exit(max((_EXIT_CODES[finding.severity] for finding in findings), default=0))


def _without(ignored: list[str]) -> list[Check]:
    names = [check.name for check in doctor_of.CHECKS]
    for name in ignored:
        if name not in names:
            raise _could_not_look(f"there is no check {name!r}: {', '.join(names)}")
    return [check for check in doctor_of.CHECKS if check.name not in ignored]


def _findings(connection: psycopg.Connection, checks: list[Check], limits: Limits, json: bool) -> list[Finding]:
    """Run the checks and print what each found, at once for people, at the end for scripts."""
    if problem := _run(doctor_of.hindrance(), connection):
        raise _could_not_look(problem)
    findings = []
    for finding in _examine(connection, checks, limits):
        findings.append(finding)
        if not json:
            console.print(_line(finding), soft_wrap=True)
    if json:
        print_json(findings)
    return findings


def _examine(connection: psycopg.Connection, checks: list[Check], limits: Limits) -> Iterator[Finding]:
    for check in checks:
        found = _look(connection, check, limits)
        yield from found or [doctor_of.ok(check)]
        if check is doctor_of.FIRST and any(finding.severity == "critical" for finding in found):
            return  # nothing else can be looked at


def _look(connection: psycopg.Connection, check: Check, limits: Limits) -> list[Finding]:
    """What a check found; that it could not look is a finding, too, unless the connection is gone."""
    try:
        return _run(check.look(limits), connection)
    except psycopg.errors.QueryCanceled:
        what = f"could not look: a statement took longer than {_TIMEOUT} s"
        mend = "run it again when less goes on; see long-transaction for who may be in the way"
        return [doctor_of.warning(check.name, what, mend, timeout_seconds=_TIMEOUT)]
    except psycopg.errors.InsufficientPrivilege as error:
        mend = "GRANT outbox_monitor TO this user, after `SELECT outbox.grant_roles()` as the owner of the schema"
        return [doctor_of.warning(check.name, f"could not look: {_first_line(error)}", mend)]
    except (psycopg.Error, OutboxError) as error:
        if connection.broken:
            raise
        return [doctor_of.warning(check.name, f"could not look: {_first_line(error)}", None)]


def _run(operation: Operation[T], connection: psycopg.Connection) -> T:
    """Run an operation, each statement in a short transaction of its own that can't write."""
    try:
        statement = next(operation)
        while True:
            with connection.transaction():
                connections.run(_one(Statement(_LIMITED, (f"{_TIMEOUT}s",))), connection)
                rows = connections.run(_one(statement), connection)
            statement = operation.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


def _one(statement: Statement) -> Operation[list[Row]]:
    return (yield statement)


def _line(finding: Finding) -> Text:
    """A line; what comes from users is no markup."""
    mark, style = _MARKS[finding.severity]
    text = Text(f"{mark} {finding.check}: ", style="dim" if finding.severity == "ok" else style)
    text.append(finding.what, style="dim" if finding.severity == "ok" else "default")
    if finding.mend:
        text.append(f" → {finding.mend}", style="bold")
    return text


def _first_line(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, OutboxError) and error.__cause__ else error
    return str(cause).strip().splitlines()[0]


def _could_not_look(why: str) -> typer.Exit:
    """Say on standard error why nothing can be said; raise the result."""
    complain(f"could not look: {why}")
    return typer.Exit(_COULD_NOT_LOOK)


_LIMITED = "SELECT set_config('statement_timeout', %s, true), set_config('jit', 'off', true)"
