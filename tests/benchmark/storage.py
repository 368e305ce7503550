"""What a message leaves behind: bytes of write-ahead log, and bytes on disk."""

from __future__ import annotations

from tests.benchmark.rig import Rig, prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures

_WARM_UP = 1_000


def bytes_left(server: Server, competitor: str, messages: int, size: int) -> Measures:
    """Publish `size` messages a commit while a consumer settles them; bytes a message, publish to settled.

    The first messages are not counted: tables get their first pages.
    """
    with prepared(server, competitor, max(messages, _WARM_UP)) as rig:
        consumers = rig.consumers("nothing")
        consumers.begin()
        rig.run("publish_in_bulk", messages=_WARM_UP, size=_WARM_UP)
        consumers.wait_until_settled(_WARM_UP)
        before = _written(rig)
        rig.run("publish_in_bulk", messages=messages, size=size)
        consumers.wait_until_settled(_WARM_UP + messages)
        after = _written(rig)
    return {key: (after[key] - before[key]) / messages for key in after}


def _written(rig: Rig) -> dict[str, int]:
    with rig.connect() as db:
        row = db.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0'), pg_database_size(current_database())"
        ).fetchone()
    assert row is not None
    return {"wal_bytes": int(row[0]), "disk_bytes": int(row[1])}
