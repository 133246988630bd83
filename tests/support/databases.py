"""Warehouses with one table of numbers, for tests of transactions, and the error from one that cannot be opened."""

import stat
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resources.database import Database
from resources.database_errors import WarehouseError

PASSWORD = "p@ss/w:rd-5e884898"


def database_at(path: Path, **fields: Any) -> Database:
    return Database(url=f"duckdb:///{path}", **fields)


def numbers(database: Database) -> list[int]:
    with database.transaction(read_only=True) as connection:
        return list(connection.execute(sa.text("select number from numbers order by number")).scalars())


def insert(connection: sa.Connection, number: int) -> None:
    connection.execute(sa.text("insert into numbers values (:number)"), {"number": number})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def as_superuser(url: str) -> str:
    return sa.make_url(url).set(username="postgres").render_as_string(hide_password=False)


def with_numbers(database: Database) -> Database:
    with database.transaction() as connection:
        connection.execute(sa.text("create table numbers (number integer)"))
        insert(connection, 1)
    return database


def is_blocking_a_writer(connection: sa.Connection) -> bool:
    """Whether another writer of this PostgreSQL database is waiting for this one to finish."""
    waiting = (
        "select exists (select from pg_locks where locktype = 'advisory' and not granted "
        "and database = (select oid from pg_database where datname = current_database()))"
    )
    return bool(connection.execute(sa.text(waiting)).scalar_one())


def refusal(url: sa.URL | str) -> str:
    """The error message if this cannot be opened, else an empty string."""
    shown = url if isinstance(url, str) else url.render_as_string(hide_password=False)
    try:
        with Database(url=shown).transaction(read_only=True):
            return ""
    except WarehouseError as error:
        assert "\n" not in str(error)
        assert error.__cause__ is None, "a cause would be shown as well"
        return str(error)
