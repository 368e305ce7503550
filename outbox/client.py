"""What an application holds: publish in its transactions, subscribe its handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar, Unpack

from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox import operations, schedules, subscription
from outbox.binding import Binding
from outbox.definitions import Definitions, Relay, Source
from outbox.definitions import definition as definitions
from outbox.errors import InvalidDeclaration
from outbox.journal import Journal
from outbox.payload import Limits
from outbox.requests import Requests
from outbox.retries import Retries
from outbox.schedules import MessageOptions, Schedule
from outbox.settings import Settings
from outbox.start import Start
from outbox.subscription import Guarantee, OnFailure, Subscription
from outbox.ticks import Missed

T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Any])

#: How long a call of a handler may take if its subscription does not say.
TIME_LIMIT = timedelta(minutes=10)


class Outbox(Requests, Journal):
    """An application's publishers and subscriptions.

    Holds no connection: `publish` uses the caller's, `outbox worker` brings its own.

    Args:
        limits: what a publish refuses.
        session_factory: makes the sessions for handlers that ask for one; by default the worker makes plain ones.
        async_session_factory: the same for coroutine handlers.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        session_factory: Callable[[], orm.Session] | None = None,
        async_session_factory: Callable[[], sqlalchemy_async.AsyncSession] | None = None,
    ) -> None:
        super().__init__(limits or Limits())
        self.session_factory = session_factory
        self.async_session_factory = async_session_factory
        self.subscriptions: dict[str, Subscription] = {}
        self.schedules: dict[str, Schedule] = {}
        self.relays: dict[str, Relay] = {}
        self.sources: dict[str, Source] = {}

    def relay(self, name: str, *topics: str | Binding, url: str, **fields: Any) -> None:
        """Declare a subscription that delivers to another system. `outbox relay -f MODULE:APP` runs it.

        Each message is settled when the other side has confirmed it; while it is away all waits.

        Args:
            topics: as `subscribe` takes them.
            url: RabbitMQ, Kafka, ActiveMQ, NATS or a webhook; it holds no password.
            fields: see `outbox.definitions.Relay`.

        Raises:
            InvalidDeclaration: the name is taken, or a field can't be so.
        """
        if name in self.relays or name in self.subscriptions:
            raise InvalidDeclaration(f"there is a relay or subscription {name!r} already")
        declared = definitions.convert({"bindings": topics, "url": url, **fields}, Relay, f"relays.{name}")
        definitions.check(Definitions(relays={name: declared}))
        self.relays[name] = declared

    def source(self, name: str, topic: str, *, url: str, address: str, **fields: Any) -> None:
        """Declare what is brought in from another system. `outbox relay -f MODULE:APP` runs it.

        Args:
            topic: where it is published, with {address} or {type} in it or not.
            url: RabbitMQ, Kafka, ActiveMQ or NATS; it holds no password.
            address: what is consumed there: a queue, topic, destination, or STREAM/CONSUMER.
            fields: see `outbox.definitions.Source`.

        Raises:
            InvalidDeclaration: the name is taken, or a field can't be so.
        """
        if name in self.sources:
            raise InvalidDeclaration(f"there is a source {name!r} already")
        declared = definitions.convert(
            {"topic": topic, "url": url, "address": address, **fields}, Source, f"sources.{name}"
        )
        definitions.check(Definitions(sources={name: declared}))
        self.sources[name] = declared

    def schedule(
        self,
        name: str,
        when: str | timedelta,
        topic: str,
        payload: Any = None,
        *,
        timezone: str = "UTC",
        missed: Missed = "one",
        **options: Unpack[MessageOptions],
    ) -> None:
        """Declare a message that is published again and again. `outbox worker` puts it into the database at start.

        Each tick is published once, however many workers run, with the headers `schedule` and `scheduled-for`. To
        change the declaration changes the schedule; to remove it does not: `outbox schedules delete` does.

        Args:
            when: a cron expression of five fields, or six with the second first; or the interval between ticks.
            timezone: an IANA name; docs/schedules.md says what happens when its clocks change.
            missed: ticks more than 60 s late, since no worker ran: "skip" them, publish "one" for all, or "all".
            options: key, headers, priority, content_type, ttl, as `publish` takes them.

        Raises:
            InvalidDeclaration: the name is taken, or it never ticks.
        """
        if name in self.schedules:
            raise InvalidDeclaration(f"there is a schedule {name!r} already")
        self.schedules[name] = schedules.new(name, when, topic, payload, timezone, missed, self.limits, options)

    def subscribe(
        self,
        name: str,
        *topics: str | Binding,
        guarantee: Guarantee = "at-least-once",
        concurrency: int = 1,
        prefetch: int | None = None,
        retries: Retries | None = None,
        start: Start = "first",
        batch: int | None = None,
        ordered: bool = False,
        on_failure: OnFailure | None = None,
        time_limit: timedelta | None = TIME_LIMIT,
        pipeline: bool = False,
        **settings: Unpack[Settings],
    ) -> Callable[[H], H]:
        """Make the decorated function, sync or async, the handler of a subscription. `outbox worker` runs it.

        It takes the message, or a `list[Message]`, and, if its signature asks, a `Session`, `AsyncSession`,
        `psycopg.Connection` or `psycopg.AsyncConnection`, in a transaction that commits when it returns. Returning is
        an ack; an exception is a retry; `Ack`, `Retry` and `Reject` may be returned, the last two raised as well. A
        handler of a list may return a list of outcomes, one a message; what is not acked must have had no effects.

        Args:
            name: each subscription gets every message; the workers of one share them.
            topics: names, patterns of words between dots (`*` is one word, `#` any number of words), or a `Binding`,
                which can look at headers and payloads as well.
            guarantee: "at-most-once", "at-least-once", or "exactly-once" for effects in this database.
            concurrency: handlers at once in each worker process.
            prefetch: messages in hand at most in each worker process; None adapts to the handler's speed.
            retries: when a failed message is tried again, and how often.
            start: where a new subscription starts: "first" is all history that is kept, "next" what commits from now,
                "last" the newest message of each partition; or an offset, a time, how long ago: see `outbox.start`.
            batch: messages at most in a list, or that share a transaction. When one fails, all are tried one by one
                (dropped, if at-most-once). 100 by default for a list, else 1.
            ordered: messages of a partition are handled one after the other, in order, by one worker at a time.
            on_failure: of an ordered subscription: "park" (the default): later messages of its key wait behind the
                failed one; "block": all of its partition do; "dead-letter": it is given up on at once.
            time_limit: a call of the handler that takes longer is cancelled, and fails; one that can't be cancelled
                has its process replaced. None: it may take for ever.
            pipeline: neither the statements of the handler's psycopg connection are waited for nor its commit, before
                the next one is called: faster where a handler only writes. An error comes at the next fetch, which may
                be that of a message before, or after the handler. If a transaction fails, those behind it have no
                effect, and their handlers are called again.
            settings: what lives in the database, see `outbox.Settings`; what is not named stays as it is there.

        Raises:
            InvalidDeclaration: the name is taken, or the handler's signature does not fit.
        """

        if on_failure is not None and not ordered:
            raise InvalidDeclaration(f"on_failure={on_failure!r} goes with ordered=True")
        if not isinstance(name, str):
            raise InvalidDeclaration("subscribe needs a name and topics: @app.subscribe('mailer', 'orders.*')")

        def register(handler: H) -> H:
            if name in self.subscriptions:
                raise InvalidDeclaration(f"subscription {name!r} has a handler already")
            self.subscriptions[name] = subscription.declare(
                name,
                topics,
                handler,
                guarantee=guarantee,
                concurrency=concurrency,
                prefetch=prefetch,
                retries=retries or Retries(),
                start=start,
                batch=batch,
                on_failure=(on_failure or "park") if ordered else None,
                time_limit=time_limit,
                pipeline=pipeline,
                settings=settings,
            )
            return handler

        return register

    def pause(self, connection: Any, subscription: str) -> bool | Awaitable[bool]:
        """Let a subscription's workers get no more messages, when the caller's transaction commits.

        What they have in hand goes on. Returns False if it was paused before.

        Raises:
            SubscriptionNotFound: there is no such subscription.
        """
        return self._run(operations.pause(subscription), connection)

    def resume(self, connection: Any, subscription: str) -> bool | Awaitable[bool]:
        """Let a paused subscription go on, when the caller's transaction commits. Returns False if it was not paused.

        Raises:
            SubscriptionNotFound: there is no such subscription.
        """
        return self._run(operations.resume(subscription), connection)
