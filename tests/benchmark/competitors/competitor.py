"""What every competitor must be able to do, so that one harness measures all alike, in processes of their own."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psycopg

from tests.benchmark.notes import Notes

#: What a handler does: nothing but read the payload; insert one row into `effect`, a transaction each; the same for
#: many messages in one transaction; wait for `Work.seconds`.
Kind = Literal["nothing", "effect", "effects", "wait"]


def order(number: int) -> dict[str, Any]:
    """An order that is 200 bytes of JSON, when it is written without spaces."""
    some = {"id": number, "customer": "customer-7", "total": "129.90", "lines": [{"sku": "A-1", "n": 2}], "note": ""}
    return {**some, "note": "x" * (112 - len(str(number)))}


def insert_order(connection: psycopg.Connection[Any], payload: dict[str, Any]) -> None:
    """The business change, in the connection's transaction; does not commit."""
    connection.execute("INSERT INTO orders VALUES (%s, %s)", (payload["id"], json.dumps(payload)))


class Publisher(ABC):
    """One connection that publishes."""

    @abstractmethod
    def in_transaction(self, payload: dict[str, Any], commit: bool = True) -> None:
        """INSERT the order into `orders (id, body)` and publish it, in one commit if the competitor can.

        Args:
            commit: False: do the same, and roll back; what can't be rolled back is not done at all.
        """

    @abstractmethod
    def many(self, payloads: Sequence[dict[str, Any]]) -> None:
        """Publish all by the fastest documented way, and commit."""


@dataclass
class Work:
    """What a consumer process is to do, and where it notes what it did."""

    kind: Kind
    #: The file of its `Notes`.
    notes: str
    #: Handlers at once.
    concurrency: int = 1
    #: Seconds that a handler of kind "wait" takes.
    seconds: float = 0.0
    #: Messages in one transaction, or one call, of kind "effects".
    batch: int = 100
    #: Are handlers coroutines? Only of kind "wait", and of competitors that know both.
    is_async: bool = False
    #: Of so many messages one fails at its first try and asks for another; 0: none does. Only outbox is asked to.
    retry_one_in: int = 0
    #: Which of the competitor's subscriptions, if it has several: only outbox is asked to.
    reader: int = 0

    def __post_init__(self) -> None:
        self._notes = Notes(self.notes)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Work:
        return cls(**json.loads(text))

    def wait_for_start(self) -> None:
        """Say that this process is ready, and wait until all are.

        Each consumer calls it once, when all is imported, right before it connects and its loop begins: starting
        Python is not measured.
        """
        self._notes.wait_for_start()

    def handle(self, payload: dict[str, Any]) -> None:
        """Note that a message is handled: every handler calls it once a message that it does not fail."""
        self._notes.note(payload["id"])


class Competitor(ABC):
    """One way to have a queue. Made anew, by its name, in each process."""

    #: As in the tables.
    name: str
    #: What it can do.
    kinds: frozenset[Kind] = frozenset({"nothing", "effect", "effects"})
    #: Does `Publisher.in_transaction` publish in the transaction of the order?
    transactional: bool = True
    #: Of the messages that are published or drained in a workload it gets this share: less than 1 for one so slow that
    #: its runs would take minutes.
    share: float = 1.0
    #: Do its consumers connect through PgBouncer in transaction pooling?
    is_pooled: bool = False

    @abstractmethod
    def missing(self) -> str | None:
        """What it needs and is not here, with the line that installs it; None: it can run."""

    @abstractmethod
    def install(self, url: str) -> None:
        """Create its tables in a fresh database. It has orders (id int PRIMARY KEY, body json) and effect (id int).

        What is published from now on is consumed, though no consumer runs yet.
        """

    @abstractmethod
    def publisher(self, url: str) -> AbstractContextManager[Publisher]:
        """Open a publisher, ready to go."""

    @abstractmethod
    def consume(self, url: str, work: Work) -> None:
        """Handle messages, in this process, by its best documented way, until SIGTERM; the default, death, will do.

        Calls `work.wait_for_start()` once and `work.handle(payload)` for each message; the row of kind "effect" and
        "effects" is `INSERT INTO effect VALUES (payload["id"])`.
        """

    @abstractmethod
    def remaining(self, url: str) -> int:
        """Messages that are not settled: 0 only if nothing is waiting, in flight, or to be tried again.

        The harness asks every few milliseconds: keep a connection.
        """

    def remove(self, url: str) -> None:  # noqa: B027  # most have nothing outside of the database
        """Close what `remaining` keeps, and undo what `install` did outside of the database, which is dropped."""
