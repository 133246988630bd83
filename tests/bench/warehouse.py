"""Warehouses of many cells, made by SQL instead of questions, and what writes and queries take over them."""

import atexit
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from rich.console import Console
from sqlalchemy.dialects.postgresql import insert

from resources.database import Database
from resources.files import replacing
from tests.bench.source import World
from tests.support.postgresql import PostgreSQL
from warehouse import migrations, parquet, rollups, tables, writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.writes import Provenance, Reading

FIRST_DAY = date(2020, 1, 1)  # the earliest that DEVIN_START_DATE may be
DATABASES = ("DuckDB", "PostgreSQL")
LATELY = 28

screen = Console(stderr=True)
_until_the_end = ExitStack()  # what the rows share, such as a server: given back when the benchmark ends
atexit.register(_until_the_end.close)


# --- databases ---


@cache
def _postgresql() -> PostgreSQL:
    folder = _until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="bench-postgresql-"))
    server = PostgreSQL(folder)
    _until_the_end.callback(server.server.stop)
    return server


def _new_url(kind: str, folder: Path) -> str:
    """A warehouse that is not there yet: a file in `folder`, or a database on the benchmark's own server."""
    return f"duckdb:///{folder}/warehouse.duckdb" if kind == "DuckDB" else _postgresql().database()


@contextmanager
def empty(kind: str) -> Iterator[Database]:
    """A new warehouse with all tables and no rows."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        database = Database(url=_new_url(kind, Path(name)))
        with database.transaction() as connection:
            migrations.migrate(connection)
        yield database


@contextmanager
def _doing(what: str) -> Iterator[None]:
    began = time.perf_counter()
    screen.print(f"  {what} …", style="dim")
    yield
    screen.print(f"  {what}: {time.perf_counter() - began:.1f} s", style="dim")


# --- writes ---


@dataclass(frozen=True)
class Upsert:
    """Seconds that the same cells took, and how many stored rows differ after they were read again unchanged.

    `by_row` is a statement for each row, `at_once` one call with all their parameters, of which the driver of
    PostgreSQL makes a pipeline; both are scaled from a part of the rows.
    """

    first: float
    again: float
    by_row: float
    at_once: float
    rows_written: int


def upsert(kind: str, orgs: int, days: int, sample: int) -> Upsert:
    """Store cells in a new warehouse, then the same again; and `sample` of them in the plain ways, scaled to all."""
    readings = _readings(orgs, days)
    by = Provenance("v2", datetime(2025, 6, 1, tzinfo=UTC), run_id="first")
    later = Provenance("v2", datetime(2025, 6, 2, tzinfo=UTC), run_id="again")
    cells = [
        {"day": of.day, "org_id": org_id, "sessions_count": count, "is_derived": False, **vars(by)}
        for of in readings
        for org_id, count in of.counts.items()
    ]
    with empty(kind) as database:
        first = _timed(lambda: _store(database, readings, by))
        before = _stored(database)
        again = _timed(lambda: _store(database, readings, later))
        after = _stored(database)
    with empty(kind) as database:
        by_row = _plainly(database, [[cell] for cell in cells[:sample]])
    with empty(kind) as database:
        at_once = _plainly(database, [cells[:sample]])
    scale = len(cells) / sample
    return Upsert(first, again, by_row * scale, at_once * scale, len(before ^ after))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _count(org: int, day: int) -> int:
    """Sessions of the organization and day of these numbers: 0 to 3, and 0 in two cells of three. See `_COUNT`."""
    return max(0, (day * 7919 + org * 104729) % 1000003 * 48271 % 65537 % 9 - 5)


_COUNT = "greatest(0, (d.number * 7919 + o.number * 104729) % 1000003 * 48271 % 65537 % 9 - 5)"  # the same in SQL


def _readings(orgs: int, days: int) -> list[Reading]:
    org_ids = World(orgs, days).org_ids
    found = []
    for number in range(days):
        day = FIRST_DAY + timedelta(number)
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        counts = {org_id: _count(org, number) for org, org_id in enumerate(org_ids)}
        found.append(
            Reading(day, start, start + timedelta(1), sum(counts.values()), counts, derived=set(), expected=orgs)
        )
    return found


def _store(database: Database, readings: Sequence[Reading], by: Provenance) -> None:
    with database.transaction() as connection:
        writes.store_days(connection, ORGANIZATIONS, readings, by)


def _plainly(database: Database, calls: Sequence[Sequence[dict[str, Any]]]) -> float:
    """Seconds of what SQLAlchemy's documentation shows: one statement, and the rows of each call as its parameters."""
    table = tables.daily_sessions
    statement = insert(table)
    values = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    key = list(table.primary_key.columns)
    upserting = statement.on_conflict_do_update(index_elements=key, set_=values)
    with database.transaction() as connection:  # opening it is not counted: it would be scaled as well
        return _timed(lambda: [connection.execute(upserting, cells) for cells in calls])


def _stored(database: Database) -> set[tuple[Any, ...]]:
    """Every cell and revision, with when and by which run it was stored."""
    with database.transaction(read_only=True) as connection:
        return {
            (table.name, *row)
            for table in (tables.daily_sessions, tables.session_revisions)
            for row in connection.execute(sa.select(table))
        }


# --- a long history ---


@dataclass(frozen=True)
class History:
    """A warehouse in which every organization has a count on every day, but for the last days that are over."""

    folder: Path
    url: str
    org_ids: Sequence[str]
    days: Sequence[date]

    @property
    def cells(self) -> int:
        """How many counts it was made with."""
        return len(self.org_ids) * len(self.days)

    @property
    def is_published(self) -> bool:
        """Whether it is a file, of which analysts have a copy."""
        return Database(url=self.url).is_file

    @property
    def snapshot(self) -> Path:
        """That copy."""
        return self.folder / "published" / "devin_sessions.duckdb"


@cache
def history(kind: str, cells: int, nights: int, seed: int) -> History:
    """A history of about so many cells that ends `nights` days before today; made once, and published if a file.

    Its first organizations are those of every source's world of this seed.
    """
    folder = Path(_until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="bench-history-")))
    last_day = datetime.now(UTC).date() - timedelta(nights + 1)
    days = [FIRST_DAY + timedelta(n) for n in range((last_day - FIRST_DAY).days + 1)]
    org_ids = World(round(cells / len(days)), 1, seed=seed).org_ids
    made = History(folder, _new_url(kind, folder), org_ids, days)
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
        database.copy_to(made.snapshot)
        with Database(url=f"duckdb:///{made.snapshot}").transaction(read_only=True) as connection:
            parquet.export(connection, made.snapshot.parent / "parquet", replacing)
    else:
        engine = sa.create_engine(made.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("vacuum analyze")  # as the server does by itself sooner or later
        engine.dispose()


def _number(
    connection: sa.Connection, name: str, column: str, type_: sa.types.TypeEngine[Any], values: Sequence[object]
) -> None:
    """These values with their numbers, as a temporary table."""
    columns = sa.Column("number", sa.BigInteger()), sa.Column(column, type_)
    table = sa.Table(name, sa.MetaData(), *columns, prefixes=["temporary"])
    connection.execute(sa.schema.CreateTable(table))
    connection.execute(sa.insert(table).values(list(enumerate(values))))


_FILLING = (
    """
    insert into organizations (org_id, org_name, created_at, first_seen_at, last_seen_at)
    select
        org_id,
        -- docs/sql.md asks for the first.
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


def wrong_cells(url: str, day: date, world: World) -> int:
    """How many counts of this day are missing, too many or other than in the world, for the world's organizations."""
    number = world.dates.index(day)
    true = {org_id: row[number] for org_id, row in zip(world.org_ids, world.counts, strict=True)}
    cells = tables.daily_sessions.c
    with Database(url=url).transaction(read_only=True) as connection:
        stored = connection.execute(sa.select(cells.org_id, cells.sessions_count).where(cells.day == day)).all()
    return len({id_ for id_, _ in {tuple(row) for row in stored} ^ true.items()})


def seconds_of_step(dagster_home: Path, step: str) -> float:
    """What Dagster says this step of the only run there took; 0 if it has none."""
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        (run,) = instance.get_runs()
        of_step = instance.get_run_step_stats(run.run_id, [step])
        return sum(stats.end_time - stats.start_time for stats in of_step if stats.end_time and stats.start_time)


# --- analysts ---


def questions(page: Path) -> dict[str, str]:
    """What analysts ask: the queries of docs/sql.md by their first comment, and each view."""
    asked = {}
    for number, block in enumerate(re.findall(r"```sql\n(.+?)```", page.read_text(encoding="utf-8"), re.DOTALL), 1):
        for statement in filter(None, (part.strip() for part in block.split(";"))):
            comment = re.match(r"-- (.+)", statement)
            asked[f"docs/sql.md: {comment[1]}" if comment else f"docs/sql.md: example {number}"] = statement
    asked[f"session_grid, the last {LATELY} days"] = f"select * from session_grid where day > current_date - {LATELY}"
    for view in (*tables.views.sorted_tables, tables.enterprise_sessions):
        asked[f"{view.name}, every value"] = _every_value(view)
    return asked


def _every_value(relation: sa.Table) -> str:
    return f"select {', '.join(f'count({column.name})' for column in relation.columns)} from {relation.name}"


def answered(snapshot: Path, sql: str) -> float:
    """Seconds from opening the snapshot to the last row."""
    began = time.perf_counter()
    with Database(url=f"duckdb:///{snapshot}").transaction(read_only=True) as connection:
        connection.exec_driver_sql(sql).fetchall()
    return time.perf_counter() - began
