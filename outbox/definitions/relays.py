"""Relays and sources as data: which system, in which form, with whose credentials. The database knows none of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from outbox.binding import Binding
from outbox.errors import InvalidDeclaration
from outbox.payload import is_topic

Protocol = Literal["rabbitmq", "kafka", "activemq", "nats", "http"]

#: What a URL's scheme means, and whether it is encrypted.
SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "amqp": ("rabbitmq", False),
    "amqps": ("rabbitmq", True),
    "kafka": ("kafka", False),
    "kafkas": ("kafka", True),
    "stomp": ("activemq", False),
    "stomps": ("activemq", True),
    "nats": ("nats", False),
    "nats+tls": ("nats", True),
    "http": ("http", False),
    "https": ("http", True),
}

#: Fields that mean something to these protocols only.
_ONLY_FOR: dict[str, tuple[Protocol, ...]] = {
    "exchange": ("rabbitmq",),
    "address": ("rabbitmq", "kafka", "activemq", "nats"),
    "sasl": ("kafka",),
    "transactional": ("kafka",),
    "secrets": ("http",),
    "allow_private": ("http",),
    "user": ("rabbitmq", "kafka", "activemq", "nats"),
    "password": ("rabbitmq", "kafka", "activemq", "nats"),
}
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


class Secret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a password or key is; one of the three. It is read when a connection is made, and kept nowhere."""

    #: The name of an environment variable.
    env: str | None = None
    #: A file that holds it, and nothing else; a line's end after it is no part of it.
    file: str | None = None
    #: A program and its arguments, that prints it.
    command: tuple[str, ...] | None = None

    @property
    def problem(self) -> str | None:
        """Why it can't be so; None if it can."""
        named = [name for name in self.__struct_fields__ if getattr(self, name)]
        return None if len(named) == 1 else "say where the secret is, and only once: env, file or command"


class _Peer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another system, and how to reach it."""

    #: Its scheme is `amqp`, `kafka`, `stomp`, `nats` or `http`; with TLS `amqps`, `kafkas`, `stomps`, `nats+tls` or
    #: `https`. It holds no password.
    url: str = ""
    user: str | None = None
    password: Secret | None = None
    #: Of Kafka, with `user` and `password`.
    sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    #: Files in PEM: whom to trust instead of the system's authorities; our certificate, and its key.
    ca: str | None = None
    certificate: str | None = None
    certificate_key: str | None = None
    #: How long the other side may take to confirm.
    timeout: timedelta = timedelta(seconds=10)
    #: The longest pause between tries while it is away.
    longest_pause: timedelta = timedelta(seconds=30)

    @property
    def protocol(self) -> Protocol:
        """Raises KeyError for a URL that `problems` has something to say about."""
        return SCHEMES[urlsplit(self.url).scheme][0]

    @property
    def is_encrypted(self) -> bool:
        return SCHEMES[urlsplit(self.url).scheme][1]

    def problems(self, name: str) -> Iterator[tuple[str, str]]:
        """The fields that can't be so ("" is the name), and why."""
        if not 0 < len(name) <= 255 or not _NAME_CHARACTERS.issuperset(name):
            yield "", "its name is letters, digits, _, - and . only, 255 at most"
        if problem := _url_problem(self.url):
            yield "url", problem
            return
        for field in self.__struct_fields__:
            only = _ONLY_FOR.get(field)
            if only and self.protocol not in only and _is_said(self, field):
                yield field, f"it means nothing to {self.protocol}"
        for field in ("timeout", "longest_pause"):
            if getattr(self, field) <= timedelta(0):
                yield field, "it must be longer than nothing"
        if (self.user is None) != (self.password is None):
            yield "password", "user and password go together"
        if self.password and self.password.problem:
            yield "password", self.password.problem
        if (self.ca or self.certificate) and not self.is_encrypted:
            yield "url", "certificates go with a scheme that is encrypted"
        if (self.certificate is None) != (self.certificate_key is None):
            yield "certificate_key", "certificate and certificate_key go together"


class Relay(_Peer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A subscription of the same name that delivers to another system, and settles what that has confirmed."""

    #: What it reads: topics, patterns, or `Binding`s.
    bindings: tuple[str | Binding, ...] = ()
    #: Where a new cursor starts; see `outbox.start`.
    start: str | int = "first"
    #: "cloudevents": attributes in headers, the payload as it is; "structured": one JSON document; "raw": no
    #: attributes.
    format: Literal["cloudevents", "structured", "raw"] = "cloudevents"
    #: The `source` of its CloudEvents: with a message's id it is unique. None: `/outbox/DATABASE`.
    source: str | None = None
    #: Where it goes: a routing key, topic, destination or subject, with {topic} and {key}. None: {topic}, of ActiveMQ
    #: /queue/{topic}.
    address: str | None = None
    #: Of Kafka: is each batch a transaction there? Who reads with `isolation.level=read_committed` sees it whole or not
    #: at all, and nothing of a try that failed, or of a process that was taken for dead.
    transactional: bool = False
    #: Of RabbitMQ. It must exist.
    exchange: str = ""
    #: Of webhooks: what signs them, the newest first; receivers accept any.
    secrets: tuple[Secret, ...] = ()
    #: Of webhooks: may it be an address of this machine or of a private network?
    allow_private: bool = False
    #: Are messages of a key delivered in order, those behind one that failed after it?
    ordered: bool = True
    #: Messages that are on their way at once, for each partition that is being delivered; 1 to 10,000.
    batch: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    #: Partitions that are being delivered at once; of an unordered relay: batches.
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 4
    #: Tries of a message that is refused, before it is a dead letter. While the other side is away nothing counts.
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=32766)] = 20

    def problems(self, name: str) -> Iterator[tuple[str, str]]:
        yield from super().problems(name)
        if not self.bindings:
            yield "bindings", "what does it read? Topics or patterns"
        for number, secret in enumerate(self.secrets):
            if secret.problem:
                yield f"secrets[{number}]", secret.problem
        for number, pattern in enumerate(self.bindings):
            try:
                Binding(pattern) if isinstance(pattern, str) else pattern
            except InvalidDeclaration as error:
                yield f"bindings[{number}]", str(error)
        if problem := _template_problem(self.address or "", ("topic", "key")):
            yield "address", problem


class Source(_Peer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What comes in from another system becomes part of the log, once."""

    #: What is consumed there: a queue, topic, destination, or STREAM/CONSUMER of NATS.
    address: str = ""
    #: Where it is published. With {address} (where it was addressed to: a routing key, topic, subject) or {type} (that
    #: of a CloudEvent); what no topic's name may hold becomes `_`.
    topic: str = ""
    #: Of Kafka: the group that shares the topic's partitions. None: its name.
    group: str | None = None
    #: Messages that share a transaction; 1 to 5,000.
    batch: Annotated[int, msgspec.Meta(ge=1, le=5_000)] = 500

    def problems(self, name: str) -> Iterator[tuple[str, str]]:
        if not _url_problem(self.url) and self.protocol == "http":
            yield "url", "nothing is fetched by HTTP: let the other side publish through an application of yours"
        yield from super().problems(name)
        if not self.address:
            yield "address", "what does it consume? A queue, topic, destination, or STREAM/CONSUMER"
        if problem := _template_problem(self.topic, ("address", "type")):
            yield "topic", problem
        elif not is_topic(self.topic.replace("{address}", "a").replace("{type}", "t")):
            yield "topic", f"{self.topic!r} is not a topic's name, with {{address}} or {{type}} in it or not"


def _is_said(peer: _Peer, field: str) -> bool:
    return bool(getattr(peer, field) != getattr(type(peer)(), field))


def _url_problem(url: str) -> str | None:
    """Says nothing of the URL itself: it may hold a password all the same."""
    wanted = f"it must be SCHEME://HOST:PORT, where the scheme is one of {', '.join(SCHEMES)}"
    try:
        parts = urlsplit(url)
        hosts = [urlsplit(f"//{host}") for host in parts.netloc.split(",")]
        is_whole = parts.scheme in SCHEMES and all(host.hostname and host.port != 0 for host in hosts)
    except ValueError:
        return wanted
    if "@" in parts.netloc:
        return "it must not hold a user or password: there are fields for them, and a password is only referred to"
    if is_whole and len(hosts) > 1 and SCHEMES[parts.scheme][0] not in ("kafka", "nats"):
        return f"{SCHEMES[parts.scheme][0]} has one host"
    return None if is_whole else wanted


def _template_problem(template: str, fields: tuple[str, ...]) -> str | None:
    bare = template
    for field in fields:
        bare = bare.replace(f"{{{field}}}", "")
    if "{" in bare or "}" in bare:
        return f"in braces there can be {' or '.join(fields)}"
    return None
