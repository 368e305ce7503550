"""What systemd hears: ready, signs of life, stopping."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox import sd_notify
from tests.library.workshop import PREAMBLE
from tests.shop_floor import CommandProcess, Database, WorkerProcess, wait_for

APP = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message): pass\n"


class Systemd:
    """The socket that it listens on, and what came."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def has_heard(self, state: str) -> bool:
        try:
            while True:
                self.heard += self._socket.recv(4096).decode().split("\n")
        except BlockingIOError:
            return state in self.heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listening = Systemd(tmp_path)
    yield listening
    listening.close()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_worker_says_that_it_is_ready_alive_and_stopping(
    shop: Database, tmp_path: Path, systemd: Systemd, processes: str
) -> None:
    asked = {"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "4000000"}
    process = WorkerProcess(shop.url, tmp_path, APP, "--processes", processes, more=asked)
    try:
        wait_for(lambda: systemd.has_heard("READY=1"), "it is ready")
        wait_for(lambda: systemd.has_heard("WATCHDOG=1"), "it is alive")
        process.wait_for_line("worker started")
        assert process.stop() == 0
        assert systemd.has_heard("STOPPING=1")
        assert systemd.heard.count("READY=1") == 1
    finally:
        process.kill()


def test_an_exporter_says_that_it_is_ready_and_alive(
    one_database: Database, tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.path)
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    process = CommandProcess(one_database.url, tmp_path, "exporter", "--listen", "127.0.0.1:0")
    try:
        wait_for(lambda: systemd.has_heard("READY=1"), "it is ready")
        wait_for(lambda: systemd.has_heard("WATCHDOG=1"), "it is alive")
    finally:
        process.kill()


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)
    sd_notify.notify("READY=1")
    assert sd_notify.interval() is None


@pytest.mark.parametrize("allowed", ["", "0", "x"])
def test_a_watchdog_that_is_not_asked_for_gets_no_signs(monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", allowed)
    assert sd_notify.interval() is None


def test_a_socket_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nowhere"))
    sd_notify.notify("READY=1")


def test_a_systemd_that_does_not_read_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, systemd: Systemd) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.path)
    for _ in range(10_000):
        sd_notify.notify("WATCHDOG=1")


def test_processes_that_are_started_are_not_systemds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    assert "NOTIFY_SOCKET" not in sd_notify.environment_of_others()
