"""`outbox relay` as a process, from a definitions file of a test; and the ledger of what it was to deliver."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from outbox import NewMessage, Outbox
from tests.shop_floor import CommandProcess, Database, at_rest, outbox, wait_for


class RelayProcess(CommandProcess):
    """`outbox relay -f FILE`; the file's text is the test's."""

    def __init__(self, url: str, folder: Path, text: str, *arguments: str, more: dict[str, str] | None = None) -> None:
        self.file = folder / "outbox.toml"
        self.file.write_text(text)
        super().__init__(url, folder, "relay", "-f", str(self.file), *arguments, more=more)


@contextmanager
def relaying(
    url: str, folder: Path, text: str, *arguments: str, more: dict[str, str] | None = None
) -> Iterator[RelayProcess]:
    """A relay that has begun; killed in the end if it still runs."""
    process = RelayProcess(url, folder, text, *arguments, more=more)
    try:
        process.wait_for_line("worker started" if "[relays." in text else "relaying")
        yield process
    finally:
        process.kill()


def publish(database: Database, topic: str, numbers: Iterable[int], keys: int = 7) -> None:
    """Messages `n` with the key `k{n % keys}`, in one transaction."""
    with database.connect() as connection:
        Outbox().publish_many(connection, topic, [NewMessage(n, key=f"k{n % keys}") for n in numbers])


def wait_until_settled(database: Database) -> None:
    wait_for(lambda: at_rest(database), "all messages delivered and settled")


def check_ledger(found: Iterable[tuple[str, int]], wanted: Iterable[int], keys: int = 7, doubled: bool = False) -> None:
    """What arrived, as (id, number) in the order of arrival: all, the same number under one id, each key in order.

    `doubled`: may some have come twice? Then a repetition goes back to what was not confirmed, and on from there.
    """
    found = list(found)
    names: dict[int, set[str]] = defaultdict(set)
    for id, number in found:
        names[number].add(id)
    lost, made_up = sorted(set(wanted) - set(names)), sorted(set(names) - set(wanted))
    assert not lost and not made_up, f"lost {lost[:10]} of {len(lost)}, made up {made_up[:10]}"  # noqa: PT018
    assert all(len(ids) == 1 for ids in names.values()), "a message came under two ids"
    if not doubled:
        assert len(found) == len(names), "a message came twice"
    first: dict[int, list[int]] = defaultdict(list)
    seen = set()
    for _, number in found:
        if number not in seen:
            seen.add(number)
            first[number % keys].append(number)
    for key, numbers in first.items():
        assert numbers == sorted(numbers), f"key {key} came out of order"


def send_probe(url: str, folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return outbox(url, "relay", "test", name, "-f", str(folder / "outbox.toml"), *arguments)


def came_in(database: Database) -> list[tuple[str, int]]:
    """The numbers that a source has published, in the log's order, as `check_ledger` wants it."""
    with psycopg.connect(database.url) as connection:
        rows = connection.execute('SELECT payload::text::int FROM outbox.message ORDER BY partition_id, "offset"')
        return [(str(n), n) for (n,) in rows.fetchall()]
