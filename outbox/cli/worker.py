"""`outbox worker`: run an application's subscriptions."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Annotated, NoReturn

import typer

from outbox import logs
from outbox.cli.importing import find
from outbox.cli.listening import address_of, listen, supervise
from outbox.cli.options import DatabaseUrl, complain, usage
from outbox.client import Outbox
from outbox.definitions import Source
from outbox.errors import HandlerStuck, OutboxError
from outbox.metrics.tally import Tally
from outbox.metrics.worker import answers_of
from outbox.observer import NOBODY
from outbox.worker import Worker

#: As we were started: an application may change both.
_ENVIRONMENT, _FOLDER = dict(os.environ), os.getcwd()


class Loop(StrEnum):
    """What runs the coroutines of a worker."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


class LogFormat(StrEnum):
    """How a worker writes its log."""

    TEXT = "text"
    JSON = "json"


def worker(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", help="Where the Outbox is, as in shop.messages:app")],
    database_url: DatabaseUrl,
    only: Annotated[
        list[str] | None, typer.Option("--only", "-o", help="Run this subscription; may be repeated. Default: all.")
    ] = None,
    processes: Annotated[int, typer.Option("--processes", "-p", min=1, help="Worker processes.")] = 1,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that handlers may go on when it is asked to stop.")] = 25,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds without a sign of life after which others take over its messages.")
    ] = 30,
    loop: Annotated[
        Loop, typer.Option(envvar="OUTBOX_LOOP", help="The event loop; uvloop makes many coroutines at once faster.")
    ] = Loop.ASYNCIO,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    log_format: Annotated[
        LogFormat, typer.Option(envvar="OUTBOX_LOG_FORMAT", help="Lines for people, or JSON for a collector.")
    ] = LogFormat.TEXT,
    log_errors: Annotated[
        bool, typer.Option("--log-errors", help="Log the texts of handlers' errors, which may show what messages hold.")
    ] = False,
    metrics: Annotated[
        str, typer.Option(envvar="OUTBOX_METRICS", help="HOST:PORT of /metrics, /healthz and /readyz. Default: none.")
    ] = "",
    origin: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL|NAME",
            help="Read Kafka or RabbitMQ instead of the log: kafka://HOST:PORT/TOPIC, "
            "amqp://HOST:PORT/VHOST?queue=NAME, or the name of a source in --definitions.",
        ),
    ] = "",
    definitions: Annotated[
        str,
        typer.Option(
            "--definitions", "-f", envvar="OUTBOX_DEFINITIONS", metavar="FILE", help="Where --from NAME is defined."
        ),
    ] = "outbox.toml",
    metrics_socket: Annotated[str, typer.Option(hidden=True, help="The same for a supervisor.")] = "",
    supervisor: Annotated[int | None, typer.Option(hidden=True, help="End when this parent process is gone.")] = None,
    name: Annotated[str | None, typer.Option(hidden=True, help="What the process is called in outbox.worker.")] = None,
) -> None:
    """Run the handlers of an application until SIGTERM or Ctrl-C.

    On a signal it pulls no more, lets handlers finish, settles, and gives the rest back for others, without spending an
    attempt. Run as many as you like, on as many machines as you like: they share the messages.

    With --from, the messages are Kafka's or RabbitMQ's; progress, what is done, and what failed are in the database.
    """
    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise usage(f"--log-level {log_level} is not one of DEBUG, INFO, WARNING, ERROR")
    logs.configure(log_level, log_errors, log_format is LogFormat.JSON)
    new_loop = _loop_factory(loop)
    found = load(app)
    if processes > 1:
        settings = {"grace": grace, "timeout": timeout, "loop": loop, "log_level": log_level, "log_format": log_format}
        if origin:
            settings |= {"from": origin, "definitions": definitions}
            _source(origin, definitions)
        command = _for_one(app, only, log_errors, **settings)
        raise typer.Exit(supervise(command, processes, database_url, metrics))
    tallies: dict[str, Tally] = {}
    one: Worker = _kind(origin, definitions)(
        found,
        database_url,
        only=tuple(only or ()),
        grace=timedelta(seconds=grace),
        timeout=timedelta(seconds=timeout),
        supervisor=supervisor,
        name=name,
        replace=_start_anew,
        observe=lambda name: tallies.setdefault(name, Tally(one.clock)) if metrics or metrics_socket else NOBODY,
    )
    if metrics or metrics_socket:
        answers = answers_of(one, tallies, found.published)
        listen(metrics_socket or address_of(metrics), answers)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_run(one))


def _kind(origin: str, definitions: str) -> Callable[..., Worker]:
    """What kind of worker reads there: of our own log, if nothing else is said."""
    if not origin:
        return Worker
    from outbox.relay.feeding import FeedWorker

    return partial(FeedWorker, source=_source(origin, definitions))


def _source(origin: str, definitions: str) -> Source:
    """What --from means."""
    from outbox import definitions as definitions_of
    from outbox.relay.feeding import is_url, named, source_of

    return source_of(origin) if is_url(origin) else named(origin, definitions_of.read(definitions))


def _loop_factory(loop: Loop) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop is Loop.ASYNCIO:
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        raise usage("--loop uvloop needs uvloop: pip install 'outbox-pg[uvloop]'") from None
    return uvloop.new_event_loop


async def _run(one: Worker) -> None:
    """Run to the end; what handlers are still at then can't keep the process."""
    try:
        await one.run()
    except HandlerStuck:
        _start_anew()
    except OutboxError as error:
        if not await _is_quiet():
            complain(str(error))
            _leave(1)
        raise
    if not await _is_quiet():
        _leave(0)


async def _is_quiet() -> bool:
    """Has everybody come to an end, a moment after we have?"""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left and (await asyncio.wait(left, timeout=1))[1]:
        return False
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.get_running_loop().shutdown_default_executor()
            return True
    return False


def _leave(code: int) -> NoReturn:
    """End now, whatever threads are still at."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _start_anew() -> NoReturn:
    """Replace this process by a new one with the same command: the same pid, and none of its threads."""
    sys.stderr.flush()
    os.chdir(_FOLDER)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], _ENVIRONMENT)


def load(path: str) -> Outbox:
    """Import MODULE:APP, from the current folder too."""
    found = find(path, "an Outbox, as in shop.messages:app")
    if not isinstance(found, Outbox):
        raise usage(f"{path!r} is {'missing' if found is None else f'a {type(found).__name__}'}, not an outbox.Outbox")
    return found


def _for_one(app: str, only: list[str] | None, log_errors: bool, **settings: object) -> list[str]:
    """The command of one process; the database's URL, which may hold a password, goes by the environment."""
    chosen = [part for name in only or () for part in ("--only", name)]
    chosen += ["--log-errors"] if log_errors else []
    settings["supervisor"] = os.getpid()
    options = (part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value)))
    return ["worker", app, *chosen, *options]
