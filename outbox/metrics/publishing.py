"""What an application publishes, for the registry of its own process."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric as Family
from prometheus_client.registry import Collector

from outbox.metrics.catalog import Metric
from outbox.published import Published
from outbox.publisher import Publisher

PUBLISHED = Metric(
    "outbox_published_messages_total",
    "Messages that this process handed to the database, whether or not the transaction then committed; the topics "
    "beyond the first hundred together as `other`.",
    "counter",
    ("topic",),
)
REFUSED = Metric(
    "outbox_publish_errors_total",
    "Publishes that failed, by the error's class: BacklogFull, InvalidMessage, TopicNotDeclared and so on.",
    "counter",
    ("error",),
)


class PublishingCollector(Collector):
    """Register it where a web server shows its metrics; a process of `outbox worker` shows them by itself."""

    def __init__(self, app: Publisher) -> None:
        self._published = app.published

    def describe(self) -> list[Family]:
        return [PUBLISHED.family(), REFUSED.family()]

    def collect(self) -> Iterator[Family]:
        return families(self._published)


def families(counts: Published) -> Iterator[Family]:
    """What was published, and what was refused."""
    yield PUBLISHED.family(((topic,), count) for topic, count in counts.messages())
    yield REFUSED.family(((error,), count) for error, count in counts.errors())
