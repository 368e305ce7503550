"""An application under test: what each begins with, and what its handlers have noted."""

from __future__ import annotations

from outbox import Outbox
from tests.shop_floor import Database, at_rest, wait_for

PREAMBLE = """
import asyncio, os, time
from datetime import timedelta
import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from outbox import Ack, Message, Outbox, Reject, Retries, Retry
from outbox.database import libpq_url

app = Outbox()
SOON = Retries(first=timedelta(milliseconds=20), longest=timedelta(milliseconds=20), max_attempts=3)

def note(what):
    with psycopg.connect(os.environ["OUTBOX_DATABASE_URL"], autocommit=True) as db:
        db.execute("INSERT INTO seen (what) VALUES (%s)", (str(what),))
"""


def publish(database: Database, topic: str, *payloads: object) -> None:
    with database.connect() as connection:
        for payload in payloads:
            Outbox().publish(connection, topic, payload, key="k", headers={"h": "v"})


def seen(database: Database) -> list[str]:
    with database.connect() as connection:
        return [what for (what,) in connection.execute("SELECT what FROM seen ORDER BY id").fetchall()]


def wait_for_rest(database: Database) -> None:
    wait_for(lambda: at_rest(database), "all messages settled")
