"""What a decorated handler declares: which topics it reads, under which guarantee, how much at once."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import psycopg
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox import settings as settings_of
from outbox import start as starts
from outbox.binding import Binding
from outbox.errors import InvalidDeclaration
from outbox.model import Message
from outbox.retries import Retries
from outbox.settings import Settings
from outbox.start import Start

Guarantee = Literal["at-most-once", "at-least-once", "exactly-once"]
OnFailure = Literal["block", "park", "dead-letter"]
Handler = Callable[..., Any]

_NAME = re.compile(r"[A-Za-z0-9_.-]+")

#: What a handler may ask for beside the message, and whether it must be a coroutine function for it.
_WANTED: dict[Any, bool] = {
    orm.Session: False,
    psycopg.Connection: False,
    sqlalchemy_async.AsyncSession: True,
    psycopg.AsyncConnection: True,
}


@dataclass(frozen=True, slots=True)
class Subscription:
    """A named reader of the log and the handler that its messages go to."""

    name: str
    #: Which topics it reads, and which of their messages.
    bindings: tuple[Binding, ...]
    handler: Handler
    guarantee: Guarantee
    #: Handlers at once in each worker process: threads, or coroutines; 1 or more.
    concurrency: int
    #: Messages in hand at most in each worker process; None: as many as a quarter of a second of work, 2,000 at most.
    prefetch: int | None
    retries: Retries
    #: Where a new subscription starts, as the database reads it: see `outbox.start`.
    start: str
    #: Messages at most that share a call (of a handler that takes a list) or a transaction; 1 or more.
    batch: int
    #: None: unordered. Otherwise messages of a partition are handled in order, and this is what a failure does to it.
    on_failure: OnFailure | None
    #: How long one call of the handler may take; None: for ever.
    time_limit: timedelta | None
    #: Are neither the statements of the handler's connection waited for, nor its commit?
    pipeline: bool
    #: Does the handler take a list of messages?
    takes_list: bool
    #: What the database is told beyond this; see `outbox.settings`.
    settings: Settings
    #: The type of session or connection that the handler asks for, and the parameter's name; or None.
    wants: tuple[Any, str] | None

    @property
    def is_async(self) -> bool:
        """Is the handler a coroutine function?"""
        return _is_async(self.handler)

    @property
    def stands_apart(self) -> bool:
        """Is what becomes of a message nothing to any other: no call, transaction or order that they share?"""
        return self.wants is None and not self.takes_list and self.on_failure is None


def declare(
    name: str,
    topics: tuple[str | Binding, ...],
    handler: Handler,
    *,
    guarantee: Guarantee,
    concurrency: int,
    prefetch: int | None,
    retries: Retries,
    start: Start,
    batch: int | None,
    on_failure: OnFailure | None,
    time_limit: timedelta | None,
    pipeline: bool,
    settings: Settings,
) -> Subscription:
    """Check a handler and its settings. Raises InvalidDeclaration, which says what does not fit."""
    _check_types(name, concurrency, prefetch, batch, retries, time_limit)
    bindings = _bindings(name, topics)
    settings_of.check(name, settings)
    _check_numbers(name, concurrency, prefetch, time_limit)
    if guarantee not in typing.get_args(Guarantee):
        raise InvalidDeclaration(f"guarantee {guarantee!r} is not one of {', '.join(typing.get_args(Guarantee))}")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise InvalidDeclaration(f"the handler of subscription {name!r} is a generator function: it has a yield in it")
    where = _start(name, start)
    takes_list, wants = _signature(name, handler)
    batch = (100 if takes_list else 1) if batch is None else batch
    _check_order(name, guarantee, on_failure)
    _check_batch(name, batch, prefetch, takes_list, wants)
    if guarantee == "at-most-once" and batch > 1 and not takes_list:
        raise InvalidDeclaration(f"subscription {name!r}: at-most-once tries nothing again, so messages share nothing")
    if guarantee == "exactly-once" and wants is None:
        raise InvalidDeclaration(
            f"subscription {name!r} is exactly-once, so its handler must take the transaction of its effects: "
            "a parameter annotated with sqlalchemy.orm.Session, psycopg.Connection or their async kinds"
        )
    if pipeline and (wants is None or wants[0] not in (psycopg.Connection, psycopg.AsyncConnection)):
        raise InvalidDeclaration(
            f"subscription {name!r} has pipeline=True, so its handler must take a psycopg.Connection or AsyncConnection"
        )
    return Subscription(
        name, bindings, handler, guarantee, concurrency, prefetch, retries, where,
        batch, on_failure, time_limit, pipeline, takes_list, settings, wants,
    )  # fmt: skip  # in the order of the fields; a line for each says no more


def _start(name: str, start: Start) -> str:
    try:
        return starts.text(start)
    except InvalidDeclaration as error:
        raise InvalidDeclaration(f"subscription {name!r}: {error}") from None


def _check_types(name: str, concurrency: Any, prefetch: Any, batch: Any, retries: Any, time_limit: Any) -> None:
    kinds: list[tuple[str, Any, type]] = [("concurrency", concurrency, int), ("prefetch", prefetch, int)]
    kinds += [("batch", batch, int), ("retries", retries, Retries), ("time_limit", time_limit, timedelta)]
    for what, value, kind in kinds:
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise InvalidDeclaration(f"subscription {name!r}: {what} is {value!r}, it must be a {kind.__name__}")


def _bindings(name: str, topics: tuple[str | Binding, ...]) -> tuple[Binding, ...]:
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise InvalidDeclaration(f"{name!r} is not a subscription name: letters, digits, _, - and . only, 255 at most")
    if not topics:
        raise InvalidDeclaration(f"subscription {name!r} names no topic: @app.subscribe({name!r}, 'orders.*')")
    return tuple(topic if isinstance(topic, Binding) else Binding(topic) for topic in topics)


def _check_numbers(name: str, concurrency: int, prefetch: int | None, time_limit: timedelta | None) -> None:
    if concurrency < 1 or (prefetch is not None and prefetch < 1):
        raise InvalidDeclaration(f"subscription {name!r}: concurrency and prefetch must be 1 or more")
    if max(concurrency, prefetch or 0) > 100_000:
        raise InvalidDeclaration(f"subscription {name!r}: concurrency and prefetch are 100,000 at most")
    if prefetch is not None and prefetch < concurrency:
        raise InvalidDeclaration(
            f"subscription {name!r}: a prefetch of {prefetch} can't keep {concurrency} handlers busy"
        )
    if time_limit is not None and time_limit <= timedelta(0):
        raise InvalidDeclaration(f"subscription {name!r}: a time limit of {time_limit} lets no handler run")


def _check_order(name: str, guarantee: Guarantee, on_failure: OnFailure | None) -> None:
    if on_failure is None:
        return
    if on_failure not in typing.get_args(OnFailure):
        raise InvalidDeclaration(f"on_failure {on_failure!r} is not one of {', '.join(typing.get_args(OnFailure))}")
    if guarantee == "at-most-once":
        raise InvalidDeclaration(f"subscription {name!r}: order needs leases: not at-most-once, but at-least-once")


def _check_batch(name: str, batch: int, prefetch: int | None, takes_list: bool, wants: tuple[Any, str] | None) -> None:
    if not 1 <= batch <= 10_000:
        raise InvalidDeclaration(f"subscription {name!r}: a batch is 1 to 10,000 messages, not {batch}")
    if prefetch is not None and prefetch < batch:
        raise InvalidDeclaration(f"subscription {name!r}: a prefetch of {prefetch} can't fill a batch of {batch}")
    if batch > 1 and not takes_list and wants is None:
        raise InvalidDeclaration(
            f"subscription {name!r} has a batch of {batch}, but its handler takes neither list[Message] nor a "
            "transaction that messages could share"
        )


def _signature(name: str, handler: Handler) -> tuple[bool, tuple[Any, str] | None]:
    """Does the handler take a list? And the second parameter's type, if it has one that we can provide."""
    hints = _hints(name, handler)
    parameters = list(inspect.signature(handler).parameters.values())
    if not parameters:
        raise InvalidDeclaration(f"the handler of subscription {name!r} takes no parameter: it gets the message")
    return _takes_list(name, parameters[0], hints), _wanted(name, handler, parameters[1:], hints)


def _hints(name: str, handler: Handler) -> dict[str, Any]:
    function: Any = handler
    while isinstance(function, functools.partial):
        function = function.func
    try:
        return typing.get_type_hints(function if inspect.isroutine(function) else function.__call__)
    except (NameError, AttributeError) as error:
        raise InvalidDeclaration(f"an annotation of the handler of {name!r} can't be resolved: {error}") from error


def _takes_list(name: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> bool:
    if parameter.kind is parameter.KEYWORD_ONLY:
        raise InvalidDeclaration(f"the handler of subscription {name!r} must take the message as its first parameter")
    kind = hints.get(parameter.name)
    takes_list = kind is list or typing.get_origin(kind) in (list, abc.Sequence)
    if kind is not None and not takes_list and kind not in (Message, Any):
        raise InvalidDeclaration(
            f"the handler of subscription {name!r} takes {parameter.name}: {kind!r}: a handler takes a Message, "
            "or a list[Message]"
        )
    return takes_list


def _wanted(
    name: str, handler: Handler, parameters: list[inspect.Parameter], hints: dict[str, Any]
) -> tuple[Any, str] | None:
    """The type of session or connection that it asks for, and under which name."""
    for p in parameters:
        if p.default is not p.empty and hints.get(p.name) in _WANTED:
            raise InvalidDeclaration(
                f"the handler of subscription {name!r} takes {p.name} with a default: it is given if it has none"
            )
    extra = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not extra:
        return None
    asked: Any = hints.get(extra[0].name)
    kind = typing.get_origin(asked) or asked
    if len(extra) > 1 or kind not in _WANTED:
        raise InvalidDeclaration(
            f"the handler of subscription {name!r} takes {', '.join(p.name for p in extra)}: beside the message it can "
            "take one parameter, annotated with sqlalchemy.orm.Session, psycopg.Connection or their async kinds"
        )
    if extra[0].kind is inspect.Parameter.POSITIONAL_ONLY:
        raise InvalidDeclaration(
            f"the handler of subscription {name!r} takes {extra[0].name} by position only: it is given by name"
        )
    if _WANTED[kind] != _is_async(handler):
        colour = "sync" if _WANTED[kind] else "async"
        raise InvalidDeclaration(f"the handler of subscription {name!r} is {colour} but asks for {kind.__name__}")
    return kind, extra[0].name


def _is_async(handler: Handler) -> bool:
    """Is it a coroutine function, or an object that is called as one?"""
    called = getattr(type(handler), "__call__", None)  # noqa: B004  # is it async, not is it callable
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called)
