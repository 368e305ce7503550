"""A Django application that sends inside its transactions, and rolls back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.shop_floor import Database, environment

APPLICATION = """
import os
import django
import dramatiq
from django.conf import settings
from outbox.dramatiq import PostgresBroker
import psycopg

info = psycopg.conninfo.conninfo_to_dict(os.environ["OUTBOX_DATABASE_URL"])
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": info["dbname"], "USER": info["user"],
    "HOST": info["host"], "PORT": info["port"],
}})
django.setup()
from django.db import connection, models, transaction

class Order(models.Model):
    class Meta:
        app_label = "shop"

with connection.schema_editor() as editor:
    editor.create_model(Order)

broker = PostgresBroker(connection=(lambda: connection) if os.environ["ASKS"] == "always" else None)
dramatiq.set_broker(broker)
done = []
note = dramatiq.actor(done.append, actor_name="note")

def place(id, fails=False):
    with transaction.atomic():
        Order.objects.create(id=id)
        if os.environ["ASKS"] == "always":
            note.send(id)
        else:
            with broker.transaction(connection):
                note.send(id)
        if fails:
            raise LookupError

place(1)
for id, fails in ((2, True), (1, False)):
    try:
        place(id, fails)
    except (LookupError, django.db.IntegrityError):
        pass
with transaction.atomic():
    place(3)
    try:
        place(4, fails=True)  # a savepoint
    except LookupError:
        pass
note.send("outside")
worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=50)
worker.start()
broker.join("default", timeout=120_000)
worker.stop()
broker.close()
assert sorted(map(str, done)) == ["1", "3", "outside"], done
assert sorted(Order.objects.values_list("id", flat=True)) == [1, 3]
"""


def run(database: Database, folder: Path, asks: str) -> None:
    program = folder / "site_under_test.py"
    program.write_text(APPLICATION)
    settings = {**environment(database.url), "ASKS": asks}
    result = subprocess.run([sys.executable, str(program)], env=settings, capture_output=True, text=True, timeout=150)
    assert result.returncode == 0, result.stderr


def test_what_is_sent_in_a_block_on_djangos_connection_rolls_back_with_its_transaction(
    one_database: Database, tmp_path: Path
) -> None:
    run(one_database, tmp_path, asks="in a block")


def test_a_broker_that_was_told_of_djangos_connection_needs_no_block(one_database: Database, tmp_path: Path) -> None:
    run(one_database, tmp_path, asks="always")
