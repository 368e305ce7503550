"""Which version of the database's schema this package works with."""

from outbox.errors import SchemaOutdated

#: The newest revision in `migrations/versions`.
SCHEMA_VERSION = "0001"


def problem(installed: str | None) -> SchemaOutdated | None:
    """Return what is wrong with the installed version (None: nothing is installed), or None; a newer one is fine."""
    if installed is None or installed < SCHEMA_VERSION:
        return SchemaOutdated(installed, SCHEMA_VERSION)
    return None
