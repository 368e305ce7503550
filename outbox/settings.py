"""What can be set for a subscription: columns of outbox.subscription, by decorator, by a definitions file, by SQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, TypedDict

from outbox.errors import InvalidDeclaration
from outbox.payload import is_topic


class Settings(TypedDict, total=False):
    """Settings that live in the database. One that is not named stays as it is; None sets its default."""

    #: Messages older than this are not delivered any more. Default: for ever.
    ttl: timedelta | None
    #: What becomes of messages that are too old: "drop", the default, or "dead-letter".
    expired: Literal["drop", "dead-letter"] | None
    #: Messages a second at most, handed out to all workers together. Default: no limit.
    rate: float | None
    #: Messages that may be handed out at once after a pause. Default: those of a second, one at least.
    burst: int | None
    #: Messages that may wait in the log. Default: as many as there are.
    max_backlog: int | None
    #: Beyond it the oldest are passed over ("drop-oldest", the default), or publishing fails ("reject-publish").
    overflow: Literal["drop-oldest", "reject-publish"] | None
    #: What it has not taken when its retention is over is held ("hold", the default), or lost and counted ("expire").
    backlog: Literal["hold", "expire"] | None
    #: One worker at a time gets messages; when it ends or dies, another does. Default: all do.
    exclusive: bool | None
    #: Keys take turns, so that many messages of one don't hold up the others'. Default: no.
    fair: bool | None
    #: A message that waited so long behind higher priorities gets a share of the pulls. Default: a minute.
    ageing: timedelta | None
    #: Messages that are given up on are published there. Default: they are kept as dead letters.
    dead_letter_topic: str | None
    #: Dead letters older than this are deleted. Default: never.
    dead_letter_ttl: timedelta | None


#: What each setting takes.
KINDS: dict[str, type | tuple[type, ...]] = {
    "ttl": timedelta,
    "expired": str,
    "rate": (int, float),
    "burst": int,
    "max_backlog": int,
    "overflow": str,
    "backlog": str,
    "exclusive": bool,
    "fair": bool,
    "ageing": timedelta,
    "dead_letter_topic": str,
    "dead_letter_ttl": timedelta,
}


_CHOICES = {
    "expired": ("drop", "dead-letter"),
    "overflow": ("drop-oldest", "reject-publish"),
    "backlog": ("hold", "expire"),
}


def check(subscription: str, settings: Settings) -> None:
    """Raise InvalidDeclaration for a setting that there is not, or of a wrong type or value."""
    for name, value in settings.items():
        if name not in KINDS:
            raise InvalidDeclaration(f"subscription {subscription!r}: there is no setting {name!r}")
        kind = KINDS[name]
        if value is not None and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
            wanted = "number" if isinstance(kind, tuple) else kind.__name__
            raise InvalidDeclaration(f"subscription {subscription!r}: {name} is {value!r}, it must be a {wanted}")
        if value is not None and (problem := _problem(name, value)):
            raise InvalidDeclaration(f"subscription {subscription!r}: {name} is {value!r}, {problem}")


def _problem(name: str, value: Any) -> str | None:
    if name in _CHOICES:
        return None if value in _CHOICES[name] else f"it must be one of {', '.join(_CHOICES[name])}"
    if name == "dead_letter_topic":
        return None if is_topic(value) else "which is not a topic's name"
    if isinstance(value, bool):
        return None
    least = type(value)(0)
    fits = value >= least if name == "ageing" else value > least
    return None if fits else "it must be more than nothing"


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as `outbox.configure` takes them: durations in seconds."""
    return {name: value.total_seconds() if isinstance(value, timedelta) else value for name, value in settings.items()}
