"""Which worker processes of this machine are gone for certain, so that nobody need wait for their silence.

A process is named by its machine's boot, its pid namespace, its pid and when it began: so a pid that is used again,
another container, or another machine is never mistaken for it. Only Linux tells; elsewhere nobody is known to be gone.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

_NAMED = re.compile(r":(?P<pid>\d+) dramatiq/(?P<place>[0-9a-f]+-\d+)-(?P<began>\d+)$")


def name() -> str:
    """This process's name in `outbox.worker`, by which its kin know it."""
    plain = f"{socket.gethostname()}:{os.getpid()} dramatiq"
    place, began = _place(), _began(os.getpid())
    return f"{plain}/{place}-{began}" if place and began else plain


def is_gone(name: str) -> bool:
    """Is it a process of this machine and pid namespace that has ended? False: nobody knows."""
    found = _NAMED.search(name)
    if found is None or found["place"] != _place():
        return False
    began = _began(int(found["pid"]))
    return began != found["began"] if began is not None else _is_ended(int(found["pid"]))


def _place() -> str | None:
    """This boot of this machine, and our pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def _began(pid: int) -> str | None:
    """When a process began, in ticks since boot; "": nothing is left of it but its exit code; None: can't be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]


def _is_ended(pid: int) -> bool:
    """Is there none? /proc may hide those of other users (hidepid), the kernel tells them from none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
