"""What can be defined: topics, subscriptions with their settings and bindings, schedules; relays and sources."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from outbox import settings as settings_of
from outbox import start as starts
from outbox import ticks
from outbox.binding import Binding
from outbox.definitions.relays import Relay, Source
from outbox.errors import InvalidDeclaration
from outbox.payload import is_topic
from outbox.ticks import Missed, Timing

S = TypeVar("S", bound=msgspec.Struct)

_SUBSCRIPTION = re.compile(r"[A-Za-z0-9_.-]{1,255}")

_Positive = Annotated[int, msgspec.Meta(ge=1)]


class Topic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A topic."""

    #: Ordered sub-logs, 1 to 1,024; a key always goes to the same one.
    partitions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    #: The highest priority, 0 to 9; each priority is a sub-log of its own.
    max_priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    #: A retention class of the database, see `outbox.retention`.
    retention: str = "standard"
    #: Is the newest message of each key kept for ever? A payload of None ends a key.
    compact: bool = False
    #: How long an idempotency key is remembered, 1 second to 28 days.
    deduplication_window: timedelta = timedelta(days=7)

    def problems(self, name: str) -> Iterator[tuple[str, str]]:
        """The fields that can't be so ("" is the name), and why."""
        if not is_topic(name):
            yield "", "a topic's name is words of letters, digits, _ and - between dots, 255 characters at most"
        if not timedelta(seconds=1) <= self.deduplication_window <= timedelta(days=28):
            yield "deduplication_window", "it must be 1 second to 28 days"


class Subscription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A subscription. Settings that are not named have their default, whatever the database says now.

    `bindings`, `guarantee`, `max_attempts` and `on_failure` are what a worker declares, too: where they are not named,
    the database's stay. Only a `guarantee` brings the defaults of the other two. A new subscription has all defaults.
    """

    #: "at-least-once" by default.
    guarantee: Literal["at-most-once", "at-least-once", "exactly-once"] | None = None
    #: What it reads: topics, patterns, or `Binding`s. None: whatever it is bound to.
    bindings: tuple[str | Binding, ...] | None = None
    #: Where a new cursor starts: "first" is all history that is kept, "next" what commits from now; see `outbox.start`.
    start: str | int = "first"
    #: 20 by default.
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=32766)] | None = None
    #: Of an ordered subscription: what a failure does to those behind it. Default: it is unordered.
    on_failure: Literal["block", "park", "dead-letter"] | None = None
    # from here on what outbox.configure() sets: see outbox.Settings
    ttl: timedelta | None = None
    expired: Literal["drop", "dead-letter"] = "drop"
    rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    burst: _Positive | None = None
    max_backlog: _Positive | None = None
    overflow: Literal["drop-oldest", "reject-publish"] = "drop-oldest"
    backlog: Literal["hold", "expire"] = "hold"
    exclusive: bool = False
    fair: bool = False
    ageing: timedelta = timedelta(minutes=1)
    dead_letter_topic: str | None = None
    dead_letter_ttl: timedelta | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, by name, the defaults included."""
        return {name: getattr(self, name) for name in settings_of.KINDS}

    @property
    def bound(self) -> tuple[Binding, ...] | None:
        """The bindings, each once; None if nothing is said of them."""
        if self.bindings is None:
            return None
        found: list[Binding] = []
        for one in self.bindings:
            binding = replace(one, headers=one.headers or None) if isinstance(one, Binding) else Binding(one)
            found += [] if binding in found else [binding]
        return tuple(found)

    def problems(self, name: str) -> Iterator[tuple[str, str]]:
        """The fields that can't be so ("" is the name), and why."""
        if not _SUBSCRIPTION.fullmatch(name):
            yield "", "a subscription's name is letters, digits, _, - and . only, 255 at most"
        for field in ("ttl", "dead_letter_ttl", "ageing"):
            value = getattr(self, field)
            if value is not None and (value < timedelta(0) or (not value and field != "ageing")):
                yield field, "it must be longer than nothing"
        for index, pattern in enumerate(self.bindings or ()):
            if not isinstance(pattern, Binding) and (problem := _pattern_problem(pattern)):
                yield f"bindings[{index}]", problem
        if problem := _start_problem(self.start):
            yield "start", problem
        if self.on_failure and self.guarantee == "at-most-once":
            yield "on_failure", "at-most-once tries nothing again, so it can't be ordered"
        if self.fair and (self.on_failure or self.guarantee == "at-most-once"):
            yield "fair", "not with on_failure or at-most-once: an order is kept, or keys take turns"
        if self.backlog == "expire" and self.max_backlog and self.overflow == "reject-publish":
            yield "backlog", "who rejects what is too much holds what it has: not with reject-publish"
        if self.dead_letter_topic is not None and not is_topic(self.dead_letter_topic):
            yield "dead_letter_topic", f"{self.dead_letter_topic!r} is not a topic's name"


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that is published again and again, by `cron` or `every`; see docs/schedules.md."""

    #: Five fields, or six with the second first.
    cron: str | None = None
    #: The interval between ticks, a second at least.
    every: timedelta | None = None
    #: An IANA name, of the clock that `cron` goes by.
    timezone: str = "UTC"
    #: Where the message is published; it must be named.
    topic: str = ""
    #: Any JSON value.
    payload: Any = None
    key: str | None = None
    headers: dict[str, str] = {}
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    #: How long each message may wait for its delivery.
    ttl: timedelta | None = None
    #: Of ticks that no worker was there for: "skip" them, publish "one" for all, or "all".
    missed: Missed = "one"

    def problems(self, name: str) -> Iterator[tuple[str, str]]:
        """The fields that can't be so ("" is the name), and why."""
        if not _SUBSCRIPTION.fullmatch(name):
            yield "", "a schedule's name is letters, digits, _, - and . only, 255 at most"
        if not is_topic(self.topic):
            yield "topic", f"{self.topic!r} is not a topic's name"
        if self.ttl is not None and self.ttl <= timedelta(0):
            yield "ttl", "it must be longer than nothing"
        try:
            ticks.check(name, Timing(self.cron, self.every, self.timezone))
        except InvalidDeclaration as error:
            yield "cron" if self.every is None else "every", str(error)


class Definitions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is defined, by name. Made in Python, or read from a file."""

    topics: dict[str, Topic] = {}
    subscriptions: dict[str, Subscription] = {}
    schedules: dict[str, Schedule] = {}
    #: What `outbox relay` runs; to `apply` a relay is a subscription, and a source nothing.
    relays: dict[str, Relay] = {}
    sources: dict[str, Source] = {}

    @property
    def all_subscriptions(self) -> dict[str, Subscription]:
        """Those that are defined, and those that relays are."""
        return {**self.subscriptions, **{name: subscription_of(relay) for name, relay in self.relays.items()}}


def subscription_of(relay: Relay) -> Subscription:
    """What a relay is in the database."""
    return Subscription(
        guarantee="at-least-once",
        bindings=relay.bindings,
        start=relay.start,
        max_attempts=relay.max_attempts,
        on_failure="park" if relay.ordered else None,
    )


def sections() -> dict[str, type[msgspec.Struct]]:
    """The sections of a file, and of what each is made."""
    hints = typing.get_type_hints(Definitions)
    return {name: typing.get_args(hints[name])[1] for name in Definitions.__struct_fields__}


def check(definitions: Definitions) -> None:
    """Raise InvalidDeclaration for the first value that is none. What filters mean is checked by the database.

    What is made in Python is not checked before.
    """
    if not isinstance(definitions, Definitions):
        raise InvalidDeclaration(f"definitions are an outbox.definitions.Definitions, not {definitions!r}")
    for section, kind in sections().items():
        for name, one in getattr(definitions, section).items():
            where = f"{section}.{quoted(name)}"
            if not isinstance(one, kind):
                raise InvalidDeclaration(f"{where}: it must be a {kind.__name__}, not {one!r}")
            convert({field: getattr(one, field) for field in one.__struct_fields__}, kind, where)
            for field, problem in one.problems(name):  # type: ignore[attr-defined]  # each kind has it
                raise InvalidDeclaration(f"{where}{'.' if field else ''}{field}: {problem}")
    if both := sorted({*definitions.relays} & {*definitions.subscriptions}):
        raise InvalidDeclaration(f"relays.{quoted(both[0])}: there is a subscription of that name, and a relay is one")
    if both := sorted({*definitions.relays} & {*definitions.sources}):
        raise InvalidDeclaration(f"sources.{quoted(both[0])}: there is a relay of that name; call them differently")


def convert(fields: Mapping[str, Any], kind: type[S], where: str) -> S:
    """Make one definition of its fields. Raises InvalidDeclaration: where, and what is expected there."""
    if strange := sorted(set(fields) - set(kind.__struct_fields__)):
        there_are = ", ".join(kind.__struct_fields__)
        raise InvalidDeclaration(f"{where}.{quoted(strange[0])}: there is no such field; there are {there_are}")
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise InvalidDeclaration(f"{where}{path.rstrip('`')}: {problem[:1].lower()}{problem[1:]}") from None


def duration_fields(kind: type[msgspec.Struct]) -> set[str]:
    """The fields that are durations."""
    return {name for name, hint in typing.get_type_hints(kind).items() if timedelta in (hint, *typing.get_args(hint))}


def quoted(name: str) -> str:
    """A name as it stands in a path, as a key in TOML does."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


def _start_problem(start: str | int) -> str | None:
    try:
        starts.text(start)
    except InvalidDeclaration as error:
        return str(error)
    return None


def _pattern_problem(pattern: str) -> str | None:
    try:
        Binding(pattern)
    except InvalidDeclaration as error:
        return str(error)
    return None
