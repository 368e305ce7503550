"""A worker process whose handlers read another system's log; what fails there is tried again from ours."""

from __future__ import annotations

import asyncio
import copy
import functools
import itertools
import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

from outbox import operations
from outbox.binding import Binding
from outbox.client import Outbox
from outbox.database import AWAY, Database, libpq_url
from outbox.definitions.relays import Source
from outbox.errors import InvalidDeclaration
from outbox.logs import log
from outbox.model import Message
from outbox.processing import traced
from outbox.relay import operations as relay_operations
from outbox.relay.circuit import Circuit
from outbox.relay.feeding import operations as feed_operations
from outbox.relay.feeding.feed import Feed
from outbox.relay.feeding.message import as_it_was
from outbox.relay.feeding.origin import of_subscription
from outbox.relay.feeding.stream import Start, stream
from outbox.relay.tally import Tally
from outbox.subscription import Subscription
from outbox.transactions import Transactions
from outbox.worker import Worker

#: Settings that mean something to our own log only: another system's is read as it comes.
_OF_OUR_LOG = ("ttl", "rate", "burst", "max_backlog", "exclusive", "fair")
#: Seconds between looks at how feeds stand, for `outbox status`; every so many times it is noted, news or not.
_NOTING, _AT_LEAST = 1.0, 15


class FeedWorker(Worker):
    """Runs subscriptions of an application on another system's log until it is asked to stop.

    Each has two consumers: a feed, which reads there; and a usual one, for what took a detour into our own log.

    Args:
        source: where it reads.
        others: as `Worker` takes them.
    """

    def __init__(self, app: Outbox, url: str, source: Source, only: tuple[str, ...] = (), **others: Any) -> None:
        super().__init__(_with_detours(app), url, only, **others)
        self._source = source
        self._fed = [app.subscriptions[one.name] for one in self._subscriptions]
        for subscription in self._fed:
            _check(subscription)
            stream(subscription.name, source, "first", None, _NOT_YET)  # says what is missing
        url = libpq_url(url)
        self._feed_database = Database(url, size=2 * len(self._fed) + 2)
        self._feed_transactions = Transactions(
            url,
            sum(one.concurrency for one in self._fed),
            {one.wants[0] for one in self._fed if one.wants},
            app.session_factory,
            app.async_session_factory,
        )
        self._feeds: list[Feed] = []

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            await self._feed_transactions.close()
            await self._feed_database.close()

    async def _start(self) -> None:
        await self._database.persist(operations.check_schema)
        for subscription in self._fed:
            await self._prepare(subscription)
        await super()._start()
        await self._feed_database.open()
        await self._feed_transactions.start()
        self._feeds = [self._feed(traced(subscription)) for subscription in self._fed]
        self._consumers += self._feeds
        log(logging.INFO, "feeding", subscriptions=",".join(feed.name for feed in self._feeds))

    async def _prepare(self, subscription: Subscription) -> None:
        """Its own topic, for detours; and a look at its filters."""
        way = feed_operations.way_of(subscription.name)
        await self._database.persist(
            lambda: operations.declare_topic(way, feed_operations.WAYS, 0, None, "standard", None)
        )
        for filter in {one.filter for one in subscription.bindings if one.filter}:
            check = functools.partial(feed_operations.filter_problem, filter)
            if problem := await self._database.persist(check):
                raise InvalidDeclaration(f"subscription {subscription.name!r}: {problem}")

    def _feed(self, subscription: Subscription) -> Feed:
        assert self._watchdog is not None
        source = of_subscription(self._source, subscription.name)
        start: Start = "next" if subscription.start == "next" else "first"
        return Feed(
            subscription,
            lambda feed: stream(subscription.name, source, start, subscription.on_failure, feed),
            self._feed_database,
            self._feed_transactions,
            self._watchdog,
            Tally(subscription.name, source.url, Circuit(source.longest_pause.total_seconds())),
            self._observe(subscription.name),
        )

    async def _work_until_stopped(self) -> None:
        noting = asyncio.create_task(self._note())
        try:
            await super()._work_until_stopped()
        finally:
            noting.cancel()
            await asyncio.gather(noting, return_exceptions=True)

    async def _note(self) -> None:
        """Tell the database how the feeds stand: at once what is news, all of it now and then."""
        noted: dict[str, object] = {}
        for count in itertools.count():
            for tally in [feed.tally for feed in self._feeds]:
                stands = (tally.circuit.state, tally.circuit.reason)
                if stands != noted.get(tally.name) or count % _AT_LEAST == 0:
                    with suppress(*AWAY):
                        await self._feed_database.run(relay_operations.note(tally, self.name))
                        noted[tally.name] = stands
            await asyncio.sleep(_NOTING)


class _NotYet:
    """A reader that reads nothing: only to see whether a stream can be made."""

    async def begin(self, lane: str, number: int, first: int | None) -> feed_operations.Begun | None:
        raise NotImplementedError

    async def end(self, lanes: list[str]) -> None:
        raise NotImplementedError


_NOT_YET = _NotYet()


def _with_detours(app: Outbox) -> Outbox:
    """The application as it works on our own log: its handlers get what took a detour as if it had taken none."""
    copied = copy.copy(app)
    copied.subscriptions = {name: _of_detours(one) for name, one in app.subscriptions.items()}
    return copied


def _of_detours(subscription: Subscription) -> Subscription:
    handler = subscription.handler

    def unwrapped(messages: Message | list[Message]) -> Any:
        return [as_it_was(one) for one in messages] if isinstance(messages, list) else as_it_was(messages)

    def call(messages: Any, **given: Any) -> Any:
        return handler(unwrapped(messages), **given)

    async def call_async(messages: Any, **given: Any) -> Any:
        return await handler(unwrapped(messages), **given)

    return replace(
        subscription,
        handler=call_async if subscription.is_async else call,
        bindings=(Binding(feed_operations.way_of(subscription.name)),),
        start="first",
    )


def _check(subscription: Subscription) -> None:
    """Raise InvalidDeclaration for what another system's log can't do."""
    name = subscription.name
    for setting in _OF_OUR_LOG:
        if subscription.settings.get(setting):
            raise InvalidDeclaration(f"subscription {name!r}: {setting} is of our own log, and can't go with --from")
    if any(one.alternate for one in subscription.bindings):
        raise InvalidDeclaration(
            f"subscription {name!r}: an alternate binding looks at all others, and can't go with --from"
        )
    if subscription.start not in ("first", "next"):
        raise InvalidDeclaration(
            f"subscription {name!r} starts at {subscription.start!r}: with --from it is 'first' or 'next'"
        )
