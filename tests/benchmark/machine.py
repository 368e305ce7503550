"""What processes cost, as Linux counts it, and how noisy the machine is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Whose versions matter.
_PACKAGES = (
    *("psycopg", "SQLAlchemy", "msgspec", "asyncpg", "uvloop", "pika"),
    *("pgmq", "pgqueuer", "procrastinate", "dramatiq", "dramatiq-postgres"),
)
_PARENT, _USER, _SYSTEM, _USER_OF_THE_DEAD, _SYSTEM_OF_THE_DEAD = 1, 11, 12, 13, 14


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, all its threads."""
    fields = _stat(pid)
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS


def cpu_seconds_of_family(pid: int) -> float:
    """Of a process and its children, those that have ended included."""
    fields = _stat(pid)
    ticks = sum(int(fields[place]) for place in (_USER, _SYSTEM, _USER_OF_THE_DEAD, _SYSTEM_OF_THE_DEAD))
    return ticks / _TICKS + sum(_cpu_seconds_if_alive(child) for child in children_of(pid))


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def parent_of(pid: int) -> int:
    return int(_stat(pid)[_PARENT])


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def resident_bytes(pid: int) -> int:
    """Memory that a process has in use for itself: not what it maps of files, as our notes are."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def noise(folder: Path | None) -> dict[str, float]:
    """How fast the machine is just now: milliseconds of a fixed task, and of an fsync of 8 kB in the folder."""
    return {"cpu_ms": _fixed_task(), "fsync_ms": _fsync(folder)}


def busy_seconds() -> float:
    """Of all processors since the machine was started, whoever used them; stolen time, too."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def own_seconds() -> float:
    """Of this process, and of its children that have ended."""
    return sum(os.times()[:4])


def environment() -> dict[str, Any]:
    """Where and when a run was made."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git_commit(),
        "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * _PAGE / 2**30),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _stat(pid: int) -> list[str]:
    """From the third field on: the second, the command, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_seconds_if_alive(pid: int) -> float:
    try:
        return cpu_seconds(pid)
    except OSError:
        return 0.0  # it has just ended, and counts with the dead from now on


def _fixed_task() -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        sum(number * number for number in range(100_000))
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def _fsync(folder: Path | None) -> float:
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(20):
            file.write(bytes(8192))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
