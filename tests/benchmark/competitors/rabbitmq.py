"""A RabbitMQ node of our own, from Debian's package: on loopback, with ports and a folder that nobody else uses."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_USER = "rabbitmq"
_NAME = "bench@127.0.0.1"
_PATIENCE = 60.0
#: Not those that connections get: one that is free now may be taken by a client before the node listens.
_PORTS = range(20_000, 32_000)

#: Answers each line that it reads by the messages in all queues, those that were taken and not acknowledged included.
_COUNT = """
Count = fun(Again) ->
    case io:get_line("") of
        eof -> halt();
        _ -> Queues = rpc:call('%s', rabbit_amqqueue, info_all, [<<"/">>, [messages]]),
             io:format("~b~n", [lists:sum([Messages || [{messages, Messages}] <- Queues])]),
             Again(Again)
    end
end,
Count(Count).
"""


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        if not _listens(port):
            return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Address:
    """Where a node is, and what it asks of other Erlang nodes."""

    #: Of AMQP, and of epmd, which knows the node by its name.
    port: int = field(default_factory=_free_port)
    epmd_port: int = field(default_factory=_free_port)
    cookie: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "ERL_EPMD_PORT": str(self.epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1"}


class Node:
    """A node, from its making, which takes some seconds, until `stop`."""

    def __init__(self) -> None:
        self.address = Address()
        self._user = _USER if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="outbox-rabbitmq-"))
        self._output = self._folder / "output"
        (self._folder / "enabled_plugins").write_text("[].")
        if self._user is not None:
            for path in (self._folder, self._folder / "enabled_plugins"):
                shutil.chown(path, self._user)
        self._epmd = self._start("epmd", "-port", str(self.address.epmd_port), "-address", "127.0.0.1")
        _wait_until(lambda: _listens(self.address.epmd_port))  # the node would start one that stays
        self._server = self._start(str(SERVER))
        self._wait_until_it_answers()

    def stop(self) -> None:
        for process in (self._server, self._epmd):
            process.terminate()
            process.wait(_PATIENCE)
        shutil.rmtree(self._folder)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        own = {
            "HOME": str(self._folder),
            "NOTIFY_SOCKET": "",
            "RUNNING_UNDER_SYSTEMD": "true",  # the server is this process, not a child of a shell
            "RABBITMQ_NODENAME": _NAME,
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.address.port),
            "RABBITMQ_DIST_PORT": str(_free_port()),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"-kernel inet_dist_use_interface {{127,0,0,1}} -setcookie {self.address.cookie}"
            ),
        }
        with open(self._output, "a") as output:
            return subprocess.Popen(
                command,
                env={**self.address.environment, **own},
                user=self._user,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def _wait_until_it_answers(self) -> None:
        import pika

        try:
            _wait_until(lambda: self._server.poll() is not None or _listens(self.address.port))
            pika.BlockingConnection(pika.URLParameters(self.address.url)).close()
        except Exception as error:
            error.add_note(self._output.read_text()[-2_000:])
            self.stop()
            raise


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError("RabbitMQ does not start")
        time.sleep(0.05)


class Counter:
    """Counts the messages of a node that nobody acknowledged: AMQP tells only those that wait."""

    def __init__(self, address: Address) -> None:
        name = f"counter-{os.getpid()}@127.0.0.1"
        own = ["-name", name, "-setcookie", address.cookie, "-kernel", "inet_dist_use_interface", "{127,0,0,1}"]
        self._erlang = subprocess.Popen(
            ["erl", "-noshell", "-hidden", *own, "-eval", _COUNT % _NAME],
            env=address.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def count(self) -> int:
        assert self._erlang.stdin is not None
        assert self._erlang.stdout is not None
        self._erlang.stdin.write("\n")
        return int(self._erlang.stdout.readline())

    def close(self) -> None:
        self._erlang.communicate()
