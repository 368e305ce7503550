"""Structured logs: one line an event, with ids; readable on a terminal."""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

logger = logging.getLogger("outbox")

_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}


#: Passwords in URLs, in libpq's connection strings, and in headers.
_SECRET = re.compile(
    r"""(?<=://)(?P<user>[^\s:/@]*):[^\s]+?(?=@[^\s@]*(?:[\s'"]|$))"""
    r"""|(?P<header>\bauthorization['"]?\s*[=:]\s*).+"""
    r"""|(?P<name>[\w-]*(?:password|passwd|pwd|secret|token|api_?key)[\w-]*['"]?\s*[=:]\s*)"""
    r"""(?:'[^']*'|"[^"]*"|[^\s'",;&]+)""",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Take out what looks like a password, wherever it came from."""
    return _SECRET.sub(lambda found: f"{found['name'] or found['header'] or (found['user'] + ':')}***", text)


def log(level: int, event: str, /, **fields: Any) -> None:
    """Write one event with its fields."""
    logger.log(level, event, extra={"fields": fields})


#: Are the texts of handlers' errors logged? They may show what a message holds.
error_texts = False


def configure(level: str = "INFO", errors: bool = False, json: bool = False) -> None:
    """Send our events to standard error, a line each, as text or JSON; with `errors`, the texts of handlers' errors."""
    global error_texts
    error_texts = errors
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if json else Lines(colour=sys.stderr.isatty()))
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # we say ourselves that the database is away


def show_fields() -> None:
    """In a program that logs in its own way: let our events show their fields in their texts."""
    if not logger.handlers and _with_fields not in logger.filters:
        logger.addFilter(_with_fields)


def _with_fields(record: logging.LogRecord) -> bool:
    if fields := record.__dict__.pop("fields", None):
        text = record.getMessage() + "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
        record.msg, record.args = redact(text), ()
    return True


class Lines(logging.Formatter):
    """`12:00:01.123 INFO    retry  subscription=mailer message=3-1042 attempt=2`"""

    default_msec_format = "%s.%03d"

    def __init__(self, colour: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
        self.colour = colour

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's name
        return f"{super().formatTime(record, datefmt)}.{int(record.msecs):03d}"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        fields = getattr(record, "fields", {})
        line = super().formatMessage(record) + "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
        line = redact(line)
        colour = _COLOURS.get(record.levelname) if self.colour else None
        return f"{colour}{line}\x1b[0m" if colour else line


class JsonLines(logging.Formatter):
    """`{"time":"2026-01-31T12:00:01.123Z","level":"WARNING","event":"retry","subscription":"mailer","attempt":2}`"""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {name: _plain(value) for name, value in getattr(record, "fields", {}).items()}
        line = {"time": at, "level": record.levelname, "event": redact(record.getMessage()), **fields}
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


def _plain(value: Any) -> Any:
    """Numbers stay what they are; all else is a text."""
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


def _quoted(value: Any) -> str:
    text = str(value)
    return repr(text) if not text or any(c.isspace() or c in "=\"'" for c in text) else text
