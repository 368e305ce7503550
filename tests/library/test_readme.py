"""Every code block of the README runs, in the order in which it stands there."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import psycopg
import pytest

from tests.shop_floor import PATIENCE, ROOT, Database, environment, outbox, wait_for

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
NAMED_URL = "postgresql://postgres@localhost/shop"


class Reader:
    """Somebody who types in what the README says, into an empty folder, against an empty database."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.environment = environment(database.url, folder)
        self.workers: list[subprocess.Popen[str]] = []

    def do(self, language: str, text: str) -> None:
        text = text.replace(NAMED_URL, self.database.url).replace(
            NAMED_URL.replace("postgresql", "postgresql+psycopg"),
            self.database.url.replace("postgresql", "postgresql+psycopg"),
        )
        if language == "python":
            self.python(text)
        elif language == "bash":
            for line in text.splitlines():
                self.shell(line)
        elif language == "sql":
            with psycopg.connect(self.database.url) as connection:
                connection.execute(text)
        else:
            assert language == "text", f"a block of {language!r} is not run by this test"

    def python(self, text: str) -> None:
        """A block that begins with a file's name is that file; others are programs."""
        named = re.match(r"# (\S+\.py)\n", text)
        path = self.folder / (named[1] if named else "program.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.run([sys.executable, str(path)])

    def shell(self, line: str) -> None:
        words = shlex.split(line, comments=True)
        if words[:2] == ["pip", "install"]:
            check_requirement(words[2])
        elif words[0] == "export":
            assert words[1] == f"OUTBOX_DATABASE_URL={self.database.url}"
        elif words[:2] == ["outbox", "worker"] or words[0] == "dramatiq":
            command = [sys.executable, "-m", *words]
            log = open(self.folder / f"worker-{len(self.workers)}.log", "w")  # noqa: SIM115  # the process keeps it
            self.workers.append(
                subprocess.Popen(command, env=self.environment, cwd=self.folder, stderr=log, stdout=log, text=True)
            )
            log.close()
        elif words[:2] == ["outbox", "doctor"]:  # these clusters don't wait for the disk, and it says so
            self.run([sys.executable, "-m", *words, "--ignore", "fsync"], allowed=(0, 1))
        else:
            assert words[0] == "outbox", line
            self.run(["bash", "-ec", line.replace("outbox ", f"{sys.executable} -m outbox ", 1)])

    def run(self, command: list[str], allowed: tuple[int, ...] = (0,)) -> None:
        result = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE
        )
        assert result.returncode in allowed, f"{command}\n{result.stdout}\n{result.stderr}"

    def close(self) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(PATIENCE)


def check_requirement(requirement: str) -> None:
    """What the README installs is what `pyproject.toml` offers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = re.fullmatch(r"([\w-]+)(?:\[(\w+)\])?", requirement)
    assert found is not None
    assert found[1] == project["name"]
    assert found[2] is None or found[2] in project["optional-dependencies"]


@pytest.fixture
def shop_database(empty_database: Database) -> Database:
    """The reader has tables of an own: the README does not create those."""
    empty_database.connect(autocommit=True).execute(
        "CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE bookings (id int PRIMARY KEY); "
        "CREATE TABLE invoices (order_id int); CREATE TABLE ledger (order_id int); CREATE TABLE moves (order_id int)"
    )
    return empty_database


def test_every_block_runs_and_the_messages_arrive(shop_database: Database, tmp_path: Path) -> None:
    reader = Reader(shop_database, tmp_path)
    try:
        for language, text in BLOCKS:
            reader.do(language, text)
        place = "from app import *; from sqlalchemy import create_engine\n" + (
            f"with Session(create_engine({shop_database.url.replace('postgresql', 'postgresql+psycopg')!r})) as s:\n"
            "    place_order(s, 1234)\n    s.commit()\n"
        )
        reader.run([sys.executable, "-c", place])
        booked = "SELECT count(*) FROM bookings WHERE id IN (1, 2, 1234, 4711, 4712, 4713)"
        wait_for(lambda: shop_database.value(booked) == 6, "all orders booked")
        invoiced = "SELECT count(DISTINCT order_id) FROM invoices"
        wait_for(lambda: shop_database.value(invoiced) == 6, "all invoices written")
        retrying = "SELECT count(*) FROM outbox.redelivery r JOIN outbox.subscription s ON s.id = r.subscription_id"
        wait_for(
            lambda: shop_database.value(f"{retrying} WHERE s.name = 'mailer'") == 1, "the mail that is tried later"
        )
        rejected = "SELECT count(*) FROM outbox.dead_letter WHERE reason = 'rejected'"
        wait_for(lambda: shop_database.value(rejected) == 1, "what is not an order")
    finally:
        reader.close()


def test_the_first_screen_is_short() -> None:
    """The program has fifteen lines at most, and stands on the first screen."""
    language, program = BLOCKS[0]
    assert language == "python"
    assert len([line for line in program.splitlines() if line.strip()]) <= 15
    assert README.index("| guarantee |") < 2500


def test_the_example_in_the_package_is_a_program() -> None:
    import outbox as package

    assert package.__doc__ is not None
    example = re.search(r"`app.py`:\n\n((?:    .*\n|\n)+)", package.__doc__)
    assert example is not None
    ast.parse(re.sub(r"^    ", "", example[1], flags=re.MULTILINE))


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_test_that_a_promise_names_exists() -> None:
    named = re.findall(r"\[(test_\w+)\]\(([^)]+)\)", README)
    assert len(named) >= 20
    for name, file in named:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{name} is not in {file}"


def test_every_promise_names_a_test() -> None:
    promised = README[README.index("## What is promised") : README.index("**Not promised:**")]
    clauses = re.split(r"^\d+\. ", promised, flags=re.MULTILINE)[1:]
    assert len(clauses) >= 12
    assert all("[test_" in clause for clause in clauses)


def test_every_command_that_is_named_exists() -> None:
    for command in set(re.findall(r"`outbox (\w+)", README)):
        assert outbox("", command, "--help").returncode == 0, command
