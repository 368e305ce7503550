"""Worker processes of dramatiq are killed while they work, on each of its brokers: what is lost, what comes again?

python -m tests.benchmark.killing [KILLS [NAME …]]

All messages are published before. Two processes of eight threads handle them, fifty milliseconds each; one is killed
(SIGKILL) again and again, the older one, and replaced. Then all is waited for, for at most two minutes and a half.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from typing import NamedTuple

from tests.benchmark.competitors import named
from tests.benchmark.notes import Notes, merged
from tests.benchmark.rig import Consumers, Rig, Role, prepared
from tests.benchmark.server import Server, start

NAMES = ("dramatiq on outbox", "dramatiq on RabbitMQ", "dramatiq-postgres")
MESSAGES, KILLS, SECONDS, THREADS = 4_000, 4, 0.05, 8
#: Seconds for what a killed process held to be found: dramatiq-postgres takes up to 90.
_PATIENCE = 150.0


class Verdict(NamedTuple):
    """What became of the messages of one broker."""

    kills: int
    lost: int
    repeated: int
    #: Not settled in the end.
    left: int
    #: From the last kill until the last message was handled.
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.kills} kills: {self.lost:,} lost, {self.repeated:,} handled again, {self.left:,} not settled; "
            f"the last was handled {self.seconds:.1f} s after the last kill"
        )


class Shift:
    """Two worker processes, of which one may be killed and replaced."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._working: list[Role] = []
        self.notes: list[Notes] = []
        for _ in range(2):
            self._hire()

    def kill(self) -> None:
        victim = self._working.pop(0)
        victim.process.kill()
        victim.process.wait()

    def replace(self) -> None:
        self._hire()

    @property
    def handled(self) -> int:
        """How many messages were, once or more often."""
        return sum(map(bool, merged(self.notes)))

    def _hire(self) -> None:
        consumers: Consumers = self._rig.consumers("wait", concurrency=THREADS, seconds=SECONDS)
        consumers.begin()
        self._working += consumers.roles
        self.notes += consumers.notes


def strike(server: Server, name: str, kills: int) -> Verdict:
    chance = random.Random(1)
    with prepared(server, name, MESSAGES) as rig:
        rig.fill(MESSAGES)
        shift = Shift(rig)
        for _ in range(kills):
            time.sleep(0.5 + chance.random())  # somewhere in the middle of its work
            assert shift.handled < MESSAGES, "all is done: nothing is left to kill for"
            shift.kill()
            killed_at = time.monotonic()
            shift.replace()
        left = _wait_until_done(rig)
        handled = merged(shift.notes)
        times = sum(notes.done for notes in shift.notes)
        done_at = max(notes.last for notes in shift.notes) / 1e9
        return Verdict(kills, handled.count(0), times - sum(map(bool, handled)), left, done_at - killed_at)


def _wait_until_done(rig: Rig) -> int:
    """How many messages are left."""
    deadline = time.monotonic() + _PATIENCE
    while (left := rig.competitor.remaining(rig.url)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: whatever was started is stopped
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    with start(None) as server:
        for name in sys.argv[2:] or NAMES:
            missing = named(name).missing()
            print(f"{name:22}", f"missing: {missing}" if missing else strike(server, name, kills), flush=True)


if __name__ == "__main__":
    main()
