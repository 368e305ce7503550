"""What a user says of where a worker takes from: a URL, or the name of a source that is defined."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import msgspec

from outbox.definitions import Definitions
from outbox.definitions.definition import check
from outbox.definitions.relays import SCHEMES, Source
from outbox.errors import InvalidDeclaration

#: What may stand behind the `?` of a URL.
_FIELDS = ("topic", "group", "queue")
_ANY = "{subscription}"


def source_of(url: str) -> Source:
    """The source that a URL means: `kafka://HOST:PORT/TOPIC`, or `amqp://HOST:PORT/VHOST?queue=NAME`.

    Raises:
        InvalidDeclaration: it is none. It says nothing of the URL itself, which may hold a password all the same.
    """
    try:
        parts = urlsplit(url)
        said = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise InvalidDeclaration("--from: that is no URL; it looks like kafka://HOST:PORT/TOPIC") from None
    if unknown := [name for name, _ in said if name not in _FIELDS]:
        raise InvalidDeclaration(
            f"--from: {unknown[0]!r} can't stand behind the ? of a URL, but {', '.join(_FIELDS)} can: all else goes "
            "into a file, as [sources.NAME], and then --from NAME -f FILE"
        )
    fields = dict(said)
    is_kafka = parts.scheme in ("kafka", "kafkas")
    address = parts.path[1:] if is_kafka else fields.get("queue", _ANY)
    if ("queue" if is_kafka else "group") in fields:
        raise InvalidDeclaration("--from: a queue is RabbitMQ's, a group is Kafka's")
    bare = f"{parts.scheme}://{parts.netloc}{'' if is_kafka else parts.path}"
    source = Source(url=bare, address=address, topic=fields.get("topic", "{type}"), group=fields.get("group"))
    _check(source)
    return source if "topic" in fields else msgspec.structs.replace(source, topic="")


def named(name: str, definitions: Definitions) -> Source:
    """A source of a definitions file. Raises InvalidDeclaration if there is none of that name."""
    if name not in definitions.sources:
        raise InvalidDeclaration(
            f"--from {name}: there is no [sources.{name}]; there are {', '.join(definitions.sources) or 'none'}"
        )
    return definitions.sources[name]


def is_url(text: str) -> bool:
    return "://" in text


def of_subscription(source: Source, subscription: str) -> Source:
    """What one subscription of an application reads: a group of its own, or its queue."""
    group = f"{source.group}.{subscription}" if source.group else subscription
    address = source.address.replace(_ANY, subscription)
    return msgspec.structs.replace(source, address=address, group=group if source.protocol == "kafka" else None)


def _check(source: Source) -> None:
    if source.url.partition("://")[0] in SCHEMES and source.protocol == "kafka" and not source.address:
        raise InvalidDeclaration(
            "--from: which topic? kafka://HOST:PORT/TOPIC, or a pattern: kafka://HOST:PORT/^orders.*"
        )
    try:
        check(Definitions(sources={"from": source}))
    except InvalidDeclaration as error:
        raise InvalidDeclaration(f"--from: {error}") from None
