"""Warehouses for the benchmark: empty ones, and ones with a long history that SQL makes up."""

import atexit
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resources.database import Database
from resources.files import replacing
from tests.bench.table import screen
from tests.bench.world import World
from tests.support.postgresql import PostgreSQL
from warehouse import migrations, parquet, rollups, tables, writes
from warehouse.snapshot import arrange

FIRST_DAY = date(2020, 1, 1)  # the earliest that DEVIN_START_DATE may be
DATABASES = ("DuckDB", "PostgreSQL")

_until_exit = ExitStack()  # what the rows share, such as a server, until the benchmark ends
atexit.register(_until_exit.close)


@cache
def _postgresql() -> PostgreSQL:
    directory = _until_exit.enter_context(tempfile.TemporaryDirectory(prefix="bench-postgresql-"))
    server = PostgreSQL(directory)
    _until_exit.callback(server.server.stop)
    return server


def new_url(kind: str, directory: Path) -> str:
    """The URL of a new warehouse: a file in `directory`, or a database on the benchmark's own server."""
    return f"duckdb:///{directory}/warehouse.duckdb" if kind == "DuckDB" else _postgresql().database()


@contextmanager
def empty(kind: str) -> Iterator[Database]:
    """A new warehouse with all its tables and no rows."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        database = Database(url=new_url(kind, Path(name)))
        with database.transaction() as connection:
            migrations.migrate(connection)
        yield database


def cells_wrong(database: Database, world: World) -> int:
    """How many counts in the warehouse are missing, extra or different from the world."""
    with database.transaction(read_only=True) as connection:
        rows = connection.execute(sa.text("select day, org_id, sessions_count from daily_sessions")).all()
    stored = {(day, org_id): count for day, org_id, count in rows}
    return len({key for key, _ in stored.items() ^ world.cells.items()}) + len(rows) - len(stored)


@contextmanager
def _doing(what: str) -> Iterator[None]:
    began = time.perf_counter()
    screen.print(f"  {what} …", style="dim")
    yield
    screen.print(f"  {what}: {time.perf_counter() - began:.1f} s", style="dim")


def count(org: int, day: int) -> int:
    """Sessions of an organization and day, by their numbers: 0 to 3, and 0 in two cells of three."""
    return max(0, (day * 7919 + org * 104729) % 1000003 * 48271 % 65537 % 9 - 5)


_COUNT = "greatest(0, (d.number * 7919 + o.number * 104729) % 1000003 * 48271 % 65537 % 9 - 5)"  # count() in SQL


@dataclass(frozen=True)
class History:
    """A warehouse in which every organization has a count on every day, except the most recent days."""

    directory: Path
    url: str
    org_ids: Sequence[str]
    days: Sequence[date]

    @property
    def cells(self) -> int:
        """How many counts it was filled with."""
        return len(self.org_ids) * len(self.days)

    @property
    def is_published(self) -> bool:
        """Whether it is a file, which is published as a snapshot."""
        return Database(url=self.url).is_file

    @property
    def snapshot(self) -> Path:
        """The path of that snapshot."""
        return self.directory / "published" / "devin_sessions.duckdb"


@cache
def history(kind: str, cells: int, nights: int, seed: int) -> History:
    """A history of about this many cells that ends `nights` days before yesterday, built once; published if a file.

    Its first organizations are those of any world with this seed.
    """
    directory = Path(_until_exit.enter_context(tempfile.TemporaryDirectory(prefix="bench-history-")))
    last_day = datetime.now(UTC).date() - timedelta(nights + 1)
    days = [FIRST_DAY + timedelta(n) for n in range((last_day - FIRST_DAY).days + 1)]
    org_ids = World(round(cells / len(days)), 1, seed=seed).org_ids
    made = History(directory, new_url(kind, directory), org_ids, days)
    with _doing(f"{kind}: {made.cells:,} cells of {len(org_ids):,} organizations on {len(days):,} days"):
        _fill(made)
    return made


def _fill(made: History) -> None:
    database = Database(url=made.url)
    with database.transaction() as connection:
        migrations.migrate(connection)
        _number(connection, "o", "org_id", sa.Text(), made.org_ids)
        _number(connection, "d", "day", sa.Date(), made.days)
        for statement in _FILLING:
            connection.execute(sa.text(statement))
        rollups.mark_everything_stale(connection)
        writes.store_expected_days(connection, made.days[0], datetime.now(UTC).date() - timedelta(1))
        for rollup in tables.ROLLUPS:
            rollups.rebuild(connection, rollup, settled_after_days=2)
    if database.is_file:
        database.copy_to(made.snapshot, arrange)
        with Database(url=f"duckdb:///{made.snapshot}").transaction(read_only=True) as connection:
            parquet.export(connection, made.snapshot.parent / "parquet", replacing)
    else:
        engine = sa.create_engine(made.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("vacuum analyze")  # as autovacuum would sooner or later
        engine.dispose()


def _number(
    connection: sa.Connection, name: str, column: str, type_: sa.types.TypeEngine[Any], values: Sequence[object]
) -> None:
    """Create a temporary table of these values, numbered from 0."""
    columns = sa.Column("number", sa.BigInteger()), sa.Column(column, type_)
    table = sa.Table(name, sa.MetaData(), *columns, prefixes=["temporary"])
    connection.execute(sa.schema.CreateTable(table))
    connection.execute(sa.insert(table).values(list(enumerate(values))))


_FILLING = (
    """
    insert into organizations (org_id, org_name, created_at, first_seen_at, last_seen_at)
    select
        org_id,
        -- docs/sql.md queries the first by name.
        case number when 0 then 'Northwind Health' else 'Organization ' || (number + 1) end,
        timestamptz '2019-12-01 00:00:00+00',
        now(),
        now()
    from o
    """,
    f"""
    insert into daily_sessions
    select day, org_id, {_COUNT}, d.number % 2 = 0, 'v2', cast(day + interval '26 hours' as timestamptz), 'a run'
    from d cross join o
    order by d.number, o.number
    """,
    """
    insert into daily_totals
    select
        day, cast(day as timestamptz), cast(day + interval '1 day' as timestamptz), sum(sessions_count),
        sum(sessions_count), 0, count(*), count(*), 'v2', min(loaded_at), min(run_id)
    from daily_sessions
    group by day
    """,
)
