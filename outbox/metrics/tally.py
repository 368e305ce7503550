"""What a worker process has done for one subscription, counted by the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal

from outbox.chunks import Chunk, Deferred
from outbox.metrics.catalog import MESSAGES, SECONDS, Family, Metric
from outbox.metrics.histogram import Histogram
from outbox.model import Message
from outbox.observer import Clock
from outbox.operations import Pulled
from outbox.series import NotBegun

_BY = ("subscription",)

HANDLED = Metric(
    "outbox_handled_messages_total",
    "Messages that handlers were called with, by outcome: done, retry, dead, dropped (failed under at-most-once), "
    "deferred (not tried, since something before it failed; it comes again).",
    "counter",
    ("subscription", "outcome"),
)
DEAD = Metric(
    "outbox_dead_letters_total",
    "Messages that a worker gave up on, by reason: attempts exhausted, rejected, failed, too old.",
    "counter",
    ("subscription", "reason"),
)
HANDLER = Metric(
    "outbox_handler_seconds",
    "Time that a handler takes for a message, its transaction included. Calls that take less than 20 ms are measured "
    "some at a time, and count with their mean.",
    "histogram",
    _BY,
    SECONDS,
)
DELIVERY = Metric(
    "outbox_delivery_seconds",
    "From publish to handler, by the database's clock, at a message's first try. Messages that a runner takes at once "
    "count as the first of them.",
    "histogram",
    _BY,
    SECONDS,
)
LOST = Metric(
    "outbox_leases_lost_total",
    "Leases that were in other hands when this worker came to settle them: their messages are handled again.",
    "counter",
    _BY,
)
PULLS = Metric(
    "outbox_pulls_total",
    "Pulls, by result: messages, empty, wait (there is more, and not yet for this worker), away (no database), "
    "lost (the worker was found dead).",
    "counter",
    ("subscription", "result"),
)
PULL = Metric("outbox_pull_seconds", "Time that a pull takes.", "histogram", _BY, SECONDS)
PULLED = Metric("outbox_pulled_messages", "Messages that a pull brings, if it brings any.", "histogram", _BY, MESSAGES)
SETTLE = Metric(
    "outbox_settle_seconds",
    "Time that a settlement takes, until it has committed; of those that are not in the handler's transaction.",
    "histogram",
    _BY,
    SECONDS,
)
SETTLED = Metric(
    "outbox_settled_leases_total", "Leases that these settlements ended, whole or in part.", "counter", _BY
)

#: In the order in which a tally has them.
TALLIED = (HANDLED, DEAD, HANDLER, DELIVERY, LOST, PULLS, PULL, PULLED, SETTLE, SETTLED)


class Tally:
    """Observes a consumer; another thread may read. It has no lock: one thread counts, by the batch."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Of counters with two labels: by the second.
        self.counts: dict[Metric, Counter[str]] = {
            HANDLED: Counter(dict.fromkeys(("done", "retry", "dead"), 0)),
            DEAD: Counter(dict.fromkeys(("attempts exhausted", "rejected"), 0)),
            PULLS: Counter(dict.fromkeys(("messages", "empty"), 0)),
        }
        self.sums: Counter[Metric] = Counter({LOST: 0, SETTLED: 0})
        self.histograms = {metric: Histogram(metric.buckets) for metric in TALLIED if metric.kind == "histogram"}

    def samples(self, metric: Metric) -> list[tuple[tuple[str, ...], float]]:
        """What there is of a counter; its labels after the subscription's."""
        if metric in self.counts:
            return [((which,), count) for which, count in list(self.counts[metric].items())]
        return [((), self.sums[metric])]

    def pulled(self, pulled: Pulled | Literal["away", "lost"], seconds: float) -> None:
        self.histograms[PULL].add(seconds)
        if isinstance(pulled, str):
            self.counts[PULLS][pulled] += 1
        elif pulled.batches:
            self.counts[PULLS]["messages"] += 1
            self.histograms[PULLED].add(sum(map(len, pulled.batches)))
        else:
            self.counts[PULLS]["empty" if pulled.again_in is None else "wait"] += 1

    def handled(self, chunk: Chunk) -> None:
        self.counts[HANDLED]["done"] += len(chunk.done)
        failed = [message for message, error in chunk.failed if not isinstance(error, Deferred | NotBegun)]
        tried = len(chunk.done) + len(failed)
        if not (tried and chunk.seconds):
            return  # it was halted before it began, or given up
        self.histograms[HANDLER].add(chunk.seconds / tried, tried)
        first = chunk.done[0] if chunk.done else failed[0]
        if not first.redelivered:
            began = self._clock.now() - chunk.seconds
            self.histograms[DELIVERY].add(max(0.0, began - _published(first)), tried)

    def failed(self, outcome: str, reason: str | None) -> None:
        self.counts[HANDLED][outcome] += 1
        if reason is not None:
            self.counts[DEAD][reason] += 1

    def settled(self, leases: int, seconds: float) -> None:
        self.histograms[SETTLE].add(seconds)
        self.sums[SETTLED] += leases

    def lost(self) -> None:
        self.sums[LOST] += 1


def families(tallies: Mapping[str, Tally]) -> Iterator[Family]:
    """What was counted for each subscription, of those that there were at the first call."""
    tallies = dict(tallies)  # a worker that starts, in its own thread, adds to it
    for metric in TALLIED:
        if metric.kind == "histogram":
            histogram = metric.histogram()
            for name, tally in tallies.items():
                tally.histograms[metric].into(histogram, [name])
            yield histogram
        else:
            yield metric.family(
                ((name, *which), value) for name, tally in tallies.items() for which, value in tally.samples(metric)
            )


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC).timestamp()


def _published(message: Message) -> float:
    """In seconds since the epoch; without a datetime on the way."""
    return _EPOCH + message._published_at / 1e6
