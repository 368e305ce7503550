"""Tell systemd how a process is (`Type=notify`, `WatchdogSec=`). Nothing happens elsewhere.

Source: sd_notify(3), systemd's stable protocol: a datagram of NAME=value lines to the socket in NOTIFY_SOCKET.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def notify(*states: str) -> None:
    """Send states, as "READY=1"; a systemd that is gone is no error."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.setblocking(False)  # one that does not read must not hold us up
        server.sendto("\n".join(states).encode(), address)


def environment_of_others() -> dict[str, str]:
    """That of processes that we start: they are ours to watch, and not systemd's."""
    return {name: value for name, value in os.environ.items() if name not in _OURS}


def interval() -> float | None:
    """Seconds between signs of life: half of what systemd allows this process; None: it does not ask for any."""
    allowed, whose = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(allowed) / 2_000_000 if allowed.isdecimal() and int(allowed) > 0 and whose == str(os.getpid()) else None


async def keep_alive() -> None:
    """Give signs of life as long as the event loop turns; until cancelled."""
    seconds = interval()
    while seconds is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds)
