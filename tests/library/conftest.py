"""A database in which handlers note what they have seen."""

import pytest

from tests.shop_floor import Database


@pytest.fixture
def shop(one_database: Database) -> Database:
    one_database.connect(autocommit=True).execute(
        "CREATE TABLE seen (id serial, what text, at timestamptz DEFAULT now())"
    )
    return one_database
