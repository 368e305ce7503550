"""Definitions as code: applied in one transaction, shown before, found again, and what cursors make of it."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from outbox import definitions, settings
from outbox.database import sqlalchemy_url
from outbox.definitions import Definitions, Schedule, Subscription, Topic
from outbox.errors import InvalidDeclaration, NotOwnTransaction
from tests.shop_floor import (
    PATIENCE,
    ROOT,
    UNREAD,
    Database,
    drain,
    environment,
    outbox,
    publish,
    pull,
    register,
    settle,
    subscribe,
    value,
    wait_for,
)

FILE = """
[topics."orders.placed"]
partitions = 4
max_priority = 9
deduplication_window = "2d"

[subscriptions.mailer]
guarantee = "at-least-once"
bindings = ["orders.*", { topic = "invoices.#", headers = { country = "DE", vip = true }, match = "any", filter = "$.total > 100" }]
start = "next"
max_attempts = 10
rate = 50
ttl = "1h30m"

[subscriptions.rest]
guarantee = "at-most-once"
bindings = [{ topic = "#", alternate = true }]
"""  # noqa: E501


class Desk:
    """Somebody with a file of definitions, and the `outbox` command."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.path = database, folder / "bus.toml"

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def apply(self, *arguments: str, code: int = 0) -> str:
        result = outbox(self.database.url, "apply", str(self.path), *arguments)
        assert result.returncode == code, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout + result.stderr

    def export(self) -> str:
        result = outbox(self.database.url, "export")
        assert result.returncode == 0, result.stderr
        return result.stdout


@pytest.fixture
def desk(one_database: Database, tmp_path: Path) -> Desk:
    desk = Desk(one_database, tmp_path)
    desk.write(FILE)
    return desk


def contents(database: Database) -> str:
    """All that is defined, as text."""
    with database.connect() as db:
        return definitions.text(definitions.export(db))


def apply(database: Database, wanted: Definitions, **how: bool) -> definitions.Plan:
    with psycopg.connect(database.url) as db:
        return definitions.apply(db, wanted, **how)


def test_a_dry_run_shows_what_would_be_done_and_does_nothing(desk: Desk) -> None:
    shown = desk.apply("--dry-run")
    assert (
        shown
        == """\
+ topic orders.placed
    partitions: 4
    max_priority: 9
    deduplication_window: 2d
+ subscription mailer
    max_attempts: 10
    ttl: 1h30m
    rate: 50
    + binding orders.*, from next
    + binding invoices.# with any of country=DE, vip where $.total > 100, from next
+ subscription rest
    guarantee: at-most-once
    + binding # alternate, from first
3 to create
"""
    )
    assert contents(desk.database) == ""
    assert desk.apply("--check", code=1) == shown
    assert contents(desk.database) == ""


def test_applied_twice_it_changes_nothing_and_says_so(desk: Desk) -> None:
    desk.apply()
    written = " UNION ALL ".join(
        f"SELECT xmin::text FROM outbox.{table}" for table in ("topic", "subscription", "binding", "cursor", "position")
    )
    before = desk.database.value(f"SELECT array_agg(xmin ORDER BY xmin) FROM ({written}) AS t")
    assert desk.apply() == "nothing to change\n"
    assert desk.apply("--check") == "nothing to change\n"
    assert desk.apply("--prune") == "nothing to change\n"
    after = desk.database.value(f"SELECT array_agg(xmin ORDER BY xmin) FROM ({written}) AS t")
    assert after == before, "it wrote nothing"


def test_what_was_changed_by_hand_is_shown_and_set_back(desk: Desk) -> None:
    desk.apply()
    desk.database.execute(
        'SELECT outbox.configure(\'mailer\', \'{"rate": null, "burst": 7, "exclusive": true}\'); '
        "SELECT outbox.declare_topic('orders.placed', 4, 9, deduplication_window => '1 day'); "
        "UPDATE outbox.binding SET filter = '$.total > 1' WHERE filter IS NOT NULL"
    )
    shown = desk.apply("--check", code=1)
    for line in (
        "deduplication_window: 1d → 2d",
        "rate: none → 50",
        "burst: 7 → none",
        "exclusive: True → False",
        "+ binding invoices.# with any of country=DE, vip where $.total > 100, from next",
        "- binding invoices.# with any of country=DE, vip where $.total > 1\n",
    ):
        assert line in shown
    desk.apply()
    assert desk.apply("--check") == "nothing to change\n"


def test_what_is_not_in_the_file_stays_until_it_is_pruned(desk: Desk) -> None:
    desk.apply()
    db = desk.database.connect(autocommit=True)
    subscribe(db, "legacy", "orders.placed", "old.#")
    db.execute("SELECT outbox.bind('mailer', 'returns')")
    publish(db, "returns", "a")
    shown = desk.apply()
    for line in (
        "  subscription legacy: not in the file",
        "    binding returns: not in the file",
        "  topic returns: not",
    ):
        assert line in shown
    assert shown.endswith("nothing to change; 3 not in the file\n")
    assert desk.apply("--check") == shown, "that is no change to make"

    assert "- subscription legacy" in desk.apply("--prune")
    assert desk.apply("--prune") == "  topic returns: not in the file\nnothing to change; 1 not in the file\n"
    assert desk.database.value("SELECT count(*) FROM outbox.subscription WHERE name = 'legacy'") == 0
    readers = "SELECT count(*) FROM outbox.lag WHERE topic = 'returns' AND subscription = 'mailer'"
    assert desk.database.value(readers) == 0


def test_a_subscription_in_use_is_pruned_by_force_only(desk: Desk) -> None:
    desk.apply()
    db = desk.database.connect(autocommit=True)
    subscribe(db, "legacy", "orders.placed")
    db.execute("SELECT outbox.register('host:1', '{legacy}', '1 hour')")
    before = contents(desk.database)
    desk.write(FILE.replace("rate = 50", "rate = 60"))
    shown = desk.apply("--prune", code=1)
    assert "subscriptions.legacy: live workers run it: host:1; stop them first, or force it" in shown
    assert contents(desk.database) == before, "nothing at all was done"
    desk.apply("--prune", "--force")
    assert "legacy" not in contents(desk.database)


BAD = [
    ("[topic.x]", "topic: there is no such section; there are topics, subscriptions"),
    ("[topics", "it is not TOML"),
    ("topics = 1", "topics: expected a table of fields, got 1"),
    ("[topics.x]\nparts = 1", "topics.x.parts: there is no such field; there are partitions, "),
    ('[topics.x]\npartitions = "4"', "topics.x.partitions: expected `int`, got `str`"),
    ("[topics.x]\npartitions = 2000", "topics.x.partitions: expected `int` <= 1024"),
    ('[topics."a b"]', 'topics."a b": a topic\'s name is words'),
    ('[topics.x]\ndeduplication_window = "60d"', "topics.x.deduplication_window: it must be 1 second to 28 days"),
    ('[subscriptions.s]\nttl = "soon"', "subscriptions.s.ttl: 'soon' is not a duration: \"10m\""),
    ('[subscriptions.s]\nttl = "0s"', "subscriptions.s.ttl: it must be longer than nothing"),
    ("[subscriptions.s]\nrate = 0", "subscriptions.s.rate: expected `float` > 0.0"),
    ('[subscriptions.s]\nguarantee = "twice"', "subscriptions.s.guarantee: invalid enum value 'twice'"),
    ('[subscriptions.s]\nbindings = "t"', "subscriptions.s.bindings: expected `array"),
    ("[subscriptions.s]\nbindings = [1]", "subscriptions.s.bindings[0]: expected a table of fields, got 1"),
    ('[subscriptions.s]\nbindings = ["t", "a..b"]', "subscriptions.s.bindings[1]: 'a..b' is not a topic or pattern"),
    ('[subscriptions.s]\nbindings = [{ topic = "a b" }]', "subscriptions.s.bindings[0]: 'a b' is not a topic or"),
    (
        '[subscriptions.s]\nbindings = [{ pattern = "t" }]',
        "subscriptions.s.bindings[0].pattern: there is no such field",
    ),
    ("[subscriptions.s]\nbindings = [{ headers = {} }]", "subscriptions.s.bindings[0]: object missing required"),
    ('[subscriptions.s]\nbindings = [{ topic = "t", match = "most" }]', "subscriptions.s.bindings[0]: match is 'most'"),
    ('[subscriptions.s]\nguarantee = "at-most-once"\non_failure = "park"', "subscriptions.s.on_failure: at-most-once"),
    ('[subscriptions.s]\nfair = true\non_failure = "park"', "subscriptions.s.fair: not with on_failure"),
    ('[subscriptions."a b"]', 'subscriptions."a b": a subscription\'s name is'),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_a_bad_file_is_refused_with_the_path_of_the_field(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bus.toml"
    path.write_text("[topics.good]\n" * (not text.startswith("topics =")) + text)
    with pytest.raises(InvalidDeclaration) as error:
        definitions.read(path)
    assert f"{path}: {says}" in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[topics.x]\nretention = "gold"',
            "topics.x: there is no retention class 'gold'; there are long, short, standard, transient",
        ),
        (
            '[subscriptions.s]\nbindings = [{ topic = "t", filter = "total >" }]',
            "subscriptions.s: binding t where total >: the filter 'total >' is not a predicate in SQL/JSON path",
        ),
        ("[topics.x]\nparts = 1", "bus.toml: topics.x.parts: there is no such field; there are partitions, "),
    ],
)
def test_what_can_not_be_is_one_line_and_nothing_is_done(desk: Desk, text: str, says: str) -> None:
    desk.write("[topics.good]\n" + text)
    for arguments in ((), ("--dry-run",)):
        shown = desk.apply(*arguments, code=1)
        assert says in shown
        assert len([line for line in shown.splitlines() if line.startswith("outbox: ")]) == 1
        assert contents(desk.database) == ""


def test_a_file_that_is_not_there_is_one_line(desk: Desk) -> None:
    desk.path.unlink()
    assert desk.apply(code=1) == f"outbox: {desk.path} can't be read: No such file or directory\n"


def test_a_topic_that_exists_gets_the_partitions_that_the_file_says(desk: Desk) -> None:
    desk.database.execute("SELECT outbox.declare_topic('orders.placed', 2)")
    before = contents(desk.database)
    assert "partitions: 2 → 4" in desk.apply("--dry-run")
    assert contents(desk.database) == before
    assert "partitions: 2 → 4" in desk.apply()
    assert desk.database.value("SELECT partitions FROM outbox.topic WHERE name = 'orders.placed'") == 4
    assert desk.apply("--check") == desk.apply("--dry-run")


def test_what_is_exported_can_be_applied_elsewhere_and_exports_the_same(
    desk: Desk, newest_postgres, tmp_path: Path
) -> None:
    desk.write(
        FILE + '[subscriptions.ordered]\nguarantee = "exactly-once"\non_failure = "block"\nageing = "0s"\nrate = 0.5\n'
    )
    desk.apply()
    exported = desk.export()
    newest_postgres.execute("CREATE DATABASE elsewhere TEMPLATE outbox_template")
    elsewhere = Desk(Database(newest_postgres, "elsewhere"), tmp_path)
    try:
        elsewhere.write(exported)
        elsewhere.apply()
        assert elsewhere.export() == exported
        assert elsewhere.apply("--check") == "nothing to change\n"
        assert desk.apply("--check") == "nothing to change\n", "and here nothing differs either"
        as_yaml = tmp_path / "bus.yaml"
        assert outbox(desk.database.url, "export", "--output", str(as_yaml)).returncode == 0
        assert definitions.read(as_yaml) == definitions.parse(exported)
    finally:
        elsewhere.database.close()
        newest_postgres.execute("DROP DATABASE elsewhere WITH (FORCE)")


def test_definitions_are_made_in_python_too(one_database: Database, tmp_path: Path) -> None:
    (tmp_path / "bus.py").write_text(
        "from datetime import timedelta\nfrom outbox import Binding\n"
        "from outbox.definitions import Definitions, Subscription, Topic\n"
        "everything = Definitions(topics={'t': Topic(partitions=2)}, subscriptions={'s': Subscription(\n"
        "    bindings=('t', Binding('u', headers={'h': None})), ttl=timedelta(hours=1))})\n"
    )
    result = outbox(one_database.url, "apply", "bus:everything", folder=tmp_path)
    assert "2 to create" in result.stdout, result.stderr
    assert 'bindings = [\n    "t",\n    { topic = "u", headers = { h = true } },\n]' in contents(one_database)
    result = outbox(one_database.url, "apply", "bus:Topic", folder=tmp_path)
    assert result.returncode == 2
    assert "'bus:Topic' is a StructMeta, not an outbox.definitions.Definitions" in result.stderr


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Definitions(topics={"t": Topic(partitions="4")}), "topics.t.partitions: expected `int`, got `str`"),  # type: ignore[arg-type]
        (Definitions(topics={"t": Subscription()}), "topics.t: it must be a Topic"),  # type: ignore[dict-item]
        (
            Definitions(subscriptions={"s": Subscription(ttl=60)}),
            "subscriptions.s.ttl: expected `duration | null`, got `int`",
        ),  # type: ignore[arg-type]
        (Definitions(subscriptions={"s": Subscription(bindings="t")}), "subscriptions.s.bindings"),  # type: ignore[arg-type]
        (Definitions(subscriptions={"s": Subscription(bindings=(1,))}), "subscriptions.s.bindings[0]"),  # type: ignore[arg-type]
        ({}, "definitions are an outbox.definitions.Definitions"),
    ],
)
def test_what_is_made_in_python_is_checked_when_it_is_applied(one_database: Database, wanted, says: str) -> None:
    with pytest.raises(InvalidDeclaration) as error:
        apply(one_database, wanted)
    assert says in str(error.value)


def test_it_needs_the_beginning_of_a_transaction(one_database: Database) -> None:
    wanted = Definitions(subscriptions={"s": Subscription(bindings=("t",))})
    with psycopg.connect(one_database.url, autocommit=True) as db, pytest.raises(NotOwnTransaction, match="autocommit"):
        definitions.apply(db, wanted)
    with psycopg.connect(one_database.url) as db:
        db.execute("SELECT outbox.publish('t', '1')")
        with pytest.raises(NotOwnTransaction, match="already written"):
            definitions.apply(db, wanted)
    engine = sqlalchemy.create_engine(sqlalchemy_url(one_database.url), poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        assert definitions.apply(connection, wanted).pending[0].action == "create"
    assert "[subscriptions.s]" in contents(one_database)


def test_an_async_connection_applies_and_exports_too(one_database: Database) -> None:
    async def both() -> tuple[definitions.Plan, Definitions]:
        async with await psycopg.AsyncConnection.connect(one_database.url) as db:
            wanted = Definitions(subscriptions={"s": Subscription(bindings=("t",))})
            return await definitions.apply(db, wanted), await definitions.export(db)

    plan, exported = asyncio.run(both())
    assert plan.pending[0].lines == ("+ binding t, from first",)
    assert list(exported.subscriptions) == ["s"]


def test_what_workers_declare_stays_where_the_file_does_not_name_it(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    subscribe(db, "s", "t", guarantee="exactly-once", max_attempts=3, on_failure="park")
    plan = apply(one_database, Definitions(subscriptions={"s": Subscription(rate=5)}), prune=True)
    assert plan.pending[0].lines == ("rate: none → 5",)
    plan = apply(one_database, Definitions(subscriptions={"s": Subscription(rate=5, guarantee="exactly-once")}))
    assert plan.pending[0].lines == ("max_attempts: 3 → 20", "on_failure: park → none")
    plan = apply(one_database, Definitions(subscriptions={"s": Subscription(rate=5, fair=True)}))
    assert plan.pending[0].lines == ("fair: False → True",)
    wanted = Subscription(rate=5, guarantee="exactly-once", on_failure="block")
    assert "fair: True → False" in apply(one_database, Definitions(subscriptions={"s": wanted})).pending[0].lines


def start_to_apply(desk: Desk) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "outbox", "apply", str(desk.path)],
        env=environment(desk.database.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until_it_waits(database: Database, what: str, count: int = 1) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0 AND query LIKE %s"
    wait_for(lambda: database.value(waiting, f"%{what}%") == count, f"{what} waiting")


def test_what_is_killed_in_the_middle_has_done_nothing_and_applied_again_does_it_all(desk: Desk) -> None:
    """It has placed the cursors and waits to declare the last topic; a publisher's transaction is open all the time."""
    desk.write("[topics.z]\n" + '[subscriptions.newcomer]\nbindings = ["t"]\nstart = "next"')
    db = desk.database.connect(autocommit=True)
    publish(db, "t", "old")
    slow, blocker = desk.database.connect(), desk.database.connect()
    publish(slow, "t", "open")
    blocker.execute("SELECT outbox.declare_topic('z')")
    process = start_to_apply(desk)
    wait_until_it_waits(desk.database, "declare_topic")
    process.kill()
    process.communicate()
    publish(db, "t", "meanwhile")
    blocker.rollback()
    gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'outbox' AND backend_type = 'client backend'"
    wait_for(lambda: desk.database.value(gone) == 0, "the end of its connection")
    assert contents(desk.database) == "[topics.t]\n"
    assert value(db, "SELECT count(*) FROM outbox.cursor") == 0

    desk.apply()
    publish(db, "t", "new")
    slow.commit()
    assert sorted(drain(db, "newcomer", register(db))) == ["new", "open"]


@pytest.mark.parametrize("start", ["first", "next"])
def test_a_publisher_that_is_open_while_it_is_applied_is_read(one_database: Database, start) -> None:
    db = one_database.connect(autocommit=True)
    publish(db, "t", "old")
    slow = one_database.connect()
    publish(slow, "t", "open")
    publish(db, "t", "old too")
    apply(one_database, Definitions(subscriptions={"s": Subscription(bindings=("t", "u"), start=start)}))
    assert value(db, "SELECT outbox.adopt(id) FROM outbox.subscription") == 0
    publish(slow, "t", "still open")
    publish(db, "u", "of a new topic")
    slow.commit()
    expected = ["of a new topic", "open", "still open"] + ["old", "old too"] * (start == "first")
    assert sorted(drain(db, "s", register(db))) == sorted(expected)


def test_of_two_that_apply_at_once_the_second_finds_it_done(desk: Desk) -> None:
    with desk.database.connect() as first:
        definitions.apply(first, definitions.read(desk.path))
        second = start_to_apply(desk)
        wait_until_it_waits(desk.database, "pg_advisory_xact_lock")
        first.commit()
    assert second.communicate(timeout=PATIENCE) == ("nothing to change\n", None)
    assert second.returncode == 0


def test_nothing_is_lost_or_doubled_while_bindings_change_back_and_forth(one_database: Database) -> None:
    """A publisher and a reader go on all the time; each binding takes in the topic."""
    db = one_database.connect(autocommit=True)
    patterns = ["t", "#", "t.#", "*"]
    apply(one_database, Definitions(subscriptions={"s": Subscription(bindings=("t",))}))
    publisher = threading.Thread(target=lambda: [publish_one(one_database, n) for n in range(150)])
    found: list[str] = []
    done = threading.Event()
    worker = register(db)

    def read() -> None:
        with psycopg.connect(one_database.url, autocommit=True) as connection:
            while not done.is_set() or value(db, f"SELECT {UNREAD}"):
                pulled = pull(connection, "s", worker, 7)
                if pulled:
                    settle(connection, worker, pulled)
                found.extend(message.payload for message in pulled)

    reader = threading.Thread(target=read)
    publisher.start()
    reader.start()
    turn = 0
    while publisher.is_alive():
        turn += 1
        wanted = Subscription(bindings=(patterns[turn % 4],), start="next")
        apply(one_database, Definitions(subscriptions={"s": wanted}), prune=True)
    publisher.join()
    done.set()
    reader.join()
    assert sorted(found) == sorted(str(n) for n in range(150))
    assert turn > 2


def publish_one(database: Database, number: int) -> None:
    with psycopg.connect(database.url) as connection:
        publish(connection, "t", str(number))


def test_what_the_documentation_shows_is_true(desk: Desk, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "definitions.md").read_text()
    blocks = dict(re.findall(r"^```(toml|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    desk.write(blocks["toml"])
    assert desk.apply("--dry-run") == blocks["text"]
    module, program = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "bus.py").write_text(module)
    (tmp_path / "program.py").write_text(program)
    environ = environment(desk.database.url, tmp_path)
    ran = subprocess.run([sys.executable, str(tmp_path / "program.py")], env=environ, capture_output=True, text=True)
    assert ran.stdout.endswith("2 to create\n"), ran.stderr
    for line in re.findall(r"^outbox ((?:topics|subscriptions) .*?)(?: +#.*)?$", text, re.MULTILINE):
        result = outbox(desk.database.url, *shlex.split(line), *(["--yes"] if "delete" in line else []))
        assert result.returncode == 0, result.stderr


def test_each_setting_of_a_subscription_can_be_defined() -> None:
    """A field for each, with the default that the database has."""
    assert set(settings.KINDS) <= set(Subscription.__struct_fields__)
    assert definitions.parse(definitions.text(Definitions(subscriptions={"s": Subscription()}))) == Definitions(
        subscriptions={"s": Subscription()}
    )


def test_defaults_are_those_of_the_database(one_database: Database) -> None:
    subscribe(one_database.connect(autocommit=True), "s")
    one_database.execute("SELECT outbox.declare_topic('t')")
    assert contents(one_database) == (
        '[topics.t]\n\n[subscriptions.s]\nguarantee = "at-least-once"\nbindings = []\nmax_attempts = 20\n'
    )


SCHEDULES = """
[schedules.nightly]
cron = "0 3 * * *"
timezone = "Europe/Berlin"
topic = "reports.due"
payload = { kind = "daily", recipients = ["a", "b"] }
headers = { source = "bus" }
ttl = "2h"

[schedules.pulse]
every = "30s"
topic = "pulse"
missed = "skip"
"""


def test_schedules_are_created_changed_found_again_and_pruned(desk: Desk) -> None:
    desk.write(SCHEDULES)
    shown = desk.apply("--dry-run")
    assert "+ schedule nightly" in shown
    assert "ttl: 2h" in shown
    assert desk.export() == ""
    desk.apply()
    assert desk.apply("--check") == desk.apply("--check")
    exported = desk.export()
    desk.write(exported)
    desk.apply("--check")
    assert outbox(desk.database.url, "schedules", "pause", "nightly").returncode == 0
    desk.write(SCHEDULES.replace("0 3 * * *", "30 4 * * *").partition("[schedules.pulse]")[0])
    shown = desk.apply()
    assert "cron: 0 3 * * * → 30 4 * * *" in shown
    assert "not in the file" in shown
    assert desk.database.value("SELECT paused_at IS NOT NULL FROM outbox.schedule WHERE name = 'nightly'")
    desk.apply("--prune")
    assert desk.database.value("SELECT array_agg(name) FROM outbox.schedule") == ["nightly"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"topic": "t"}, "ticks by a cron expression, or after each interval"),
        ({"topic": "t", "cron": "61 * * * *"}, "schedules.s.cron"),
        ({"cron": "* * * * *"}, "schedules.s.topic: '' is not a topic's name"),
        ({"topic": "t", "cron": "* * * * *", "timezone": "Mars"}, "Mars"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(one_database: Database, fields: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidDeclaration, match=re.escape(says)):
        apply(one_database, Definitions(schedules={"s": Schedule(**fields)}))  # type: ignore[arg-type]
