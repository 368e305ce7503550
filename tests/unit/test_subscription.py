"""What a decorated handler may look like, and what it is told when it does not."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox import InvalidDeclaration, Message, Outbox


def test_a_handler_is_registered_under_its_name_and_stays_callable() -> None:
    app = Outbox()

    @app.subscribe("mailer", "orders.*", "invoices")
    def handler(message):
        return "called"

    assert handler(None) == "called"
    declared = app.subscriptions["mailer"]
    assert ([one.pattern for one in declared.bindings], declared.guarantee, declared.wants) == (
        ["orders.*", "invoices"],
        "at-least-once",
        None,
    )


def test_a_handler_may_ask_for_a_session_or_connection() -> None:
    app = Outbox()

    @app.subscribe("one", "t")
    def one(message: Message, session: Session) -> None: ...

    @app.subscribe("two", "t")
    def two(message: Message, c: psycopg.Connection) -> None: ...

    @app.subscribe("three", "t")
    async def three(message: Message, session: AsyncSession) -> None: ...

    @app.subscribe("four", "t")
    async def four(message: Message, connection: psycopg.AsyncConnection) -> None: ...

    @app.subscribe("five", "t")
    def five(message: Message, flavour: str = "vanilla") -> None: ...

    wants = [declared.wants for declared in app.subscriptions.values()]
    assert wants == [
        (Session, "session"),
        (psycopg.Connection, "c"),
        (AsyncSession, "session"),
        (psycopg.AsyncConnection, "connection"),
        None,
    ]


def no_parameter() -> None: ...


def unknown_parameter(message: Message, logger: int) -> None: ...


def two_parameters(message: Message, session: Session, connection: psycopg.Connection) -> None: ...


def sync_for_async(message: Message, session: AsyncSession) -> None: ...


async def async_for_sync(message: Message, session: Session) -> None: ...


def generator(message: Message):
    yield


def a_number(message: int) -> None: ...
def by_keyword(*, message: Message) -> None: ...
def a_default(message: Message, session: Session = None) -> None: ...  # type: ignore[assignment]
def by_position(message: Message, session: Session, /) -> None: ...


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (generator, "is a generator function"),
        (no_parameter, "takes no parameter: it gets the message"),
        (unknown_parameter, "takes logger: beside the message"),
        (two_parameters, "takes session, connection: beside the message"),
        (sync_for_async, "is sync but asks for AsyncSession"),
        (async_for_sync, "is async but asks for Session"),
        (a_number, "a handler takes a Message, or a list"),
        (by_keyword, "must take the message as its first parameter"),
        (a_default, "takes session with a default"),
        (by_position, "by position only"),
    ],
)
def test_a_handler_that_cannot_be_called_is_refused(handler, says: str) -> None:
    with pytest.raises(InvalidDeclaration, match=says):
        Outbox().subscribe("s", "t")(handler)


def plain(message: Message) -> None: ...


@pytest.mark.parametrize(
    ("patterns", "settings", "says"),
    [
        ([], {}, "names no topic"),
        (["t"], {"guarantee": "maybe"}, "is not one of at-most-once"),
        (["t"], {"guarantee": "exactly-once"}, "must take the transaction of its effects"),
        (["t"], {"pipeline": True}, "must take a psycopg.Connection"),
        (["t"], {"concurrency": 0}, "must be 1 or more"),
        (["t"], {"prefetch": 0}, "must be 1 or more"),
        (["t"], {"prefetch": 2, "concurrency": 3}, "can't keep 3 handlers busy"),
        (["t"], {"start": "yesterday"}, "subscription 's': 'yesterday' is nowhere to start"),
        (["a b"], {}, "is not a topic or pattern"),
        (["orders.x*"], {}, "is not a topic or pattern"),
        ([["a", "b"]], {}, "a topic is \\['a', 'b'\\], it must be a str"),
        (["t"], {"retries": 5}, "retries is 5, it must be a Retries"),
        (["t"], {"time_limit": 5}, "time_limit is 5, it must be a timedelta"),
        (["t"], {"time_limit": timedelta(0)}, "lets no handler run"),
        (["t"], {"batch": "10"}, "batch is '10', it must be a int"),
        (["t"], {"batch": 0}, "a batch is 1 to 10,000 messages, not 0"),
        (["t"], {"batch": 10}, "takes neither list"),
        (["t"], {"concurrency": 2.5}, "it must be a int"),
        (["t"], {"prefetch": 200_000}, "100,000 at most"),
        (["t"], {"on_failure": "park"}, "goes with ordered=True"),
        (["t"], {"ordered": True, "on_failure": "wait"}, "is not one of block, park, dead-letter"),
        (["t"], {"ordered": True, "guarantee": "at-most-once"}, "order needs leases"),
    ],
)
def test_settings_that_make_no_sense_are_refused(patterns, settings, says: str) -> None:
    with pytest.raises(InvalidDeclaration, match=says):
        Outbox().subscribe("s", *patterns, **settings)(plain)


@pytest.mark.parametrize("name", ["", "a b", "x*"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidDeclaration, match="is not a subscription name"):
        Outbox().subscribe(name, "t")(plain)


def test_subscribe_without_arguments_is_refused() -> None:
    with pytest.raises(InvalidDeclaration, match="needs a name and topics"):
        Outbox().subscribe(plain)  # type: ignore[type-var,arg-type]


def test_an_object_that_can_be_called_is_a_handler() -> None:
    class Handler:
        def __call__(self, message: Message, session: Session) -> None: ...

    app = Outbox()
    app.subscribe("s", "t")(Handler())
    assert app.subscriptions["s"].wants == (Session, "session")


def test_a_name_can_be_taken_once() -> None:
    app = Outbox()
    app.subscribe("s", "t")(plain)
    with pytest.raises(InvalidDeclaration, match="has a handler already"):
        app.subscribe("s", "t")(plain)


def test_a_handler_takes_a_message_or_a_list_of_them() -> None:
    def many(messages: list[Message]) -> None: ...
    def few(messages: Sequence[Message]) -> None: ...
    def configured(settings: dict[str, str], messages: list[Message]) -> None: ...

    class Called:
        async def __call__(self, messages: list[Message], session: AsyncSession) -> None: ...

    app = Outbox()
    for name, handler in ("1", many), ("2", few), ("3", partial(configured, {})), ("4", Called()), ("5", plain):
        app.subscribe(name, "t")(handler)
    declared = list(app.subscriptions.values())
    assert [one.takes_list for one in declared] == [True, True, True, True, False]
    assert [one.batch for one in declared] == [100, 100, 100, 100, 1]
    assert [one.is_async for one in declared] == [False, False, False, True, False]
