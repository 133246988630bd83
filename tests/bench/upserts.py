"""Measures how fast the warehouse stores cells, and whether several can at once."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from resources.database import Database
from resources.database_errors import WarehouseError
from tests.bench.databases import FIRST_DAY, count, empty
from tests.bench.sizes import Sizes
from tests.bench.table import Row, spread
from tests.bench.world import World
from warehouse import tables, writes
from warehouse.dimensions import ORGANIZATIONS
from warehouse.writes import Provenance, Reading


def upsert(sizes: Sizes) -> list[Row]:
    """Many cells in one write, then the same cells again, beside one statement per row."""
    orgs, days = sizes.upserted
    cells = f"{orgs * days:,} cells"
    rows = []
    for kind, share in (("DuckDB", 100), ("PostgreSQL", 10)):
        runs = [_upsert(kind, orgs, days, sizes.by_row) for _ in range(sizes.times)]
        first, again, by_row, at_once = (
            statistics.median(values)
            for values in zip(*((r.first, r.again, r.by_row, r.at_once) for r in runs), strict=True)
        )
        written = max(run.rows_written for run in runs)
        compared = Row(
            f"upsert of {cells} ÷ a statement a row, {kind}",
            f"≤ 1/{share}",
            f"1/{by_row / first:.0f}",
            by_row / first >= share,
            [
                f"{first:.2f} s; {spread([run.first for run in runs])}",
                f"a statement a row {by_row:.1f} s, scaled from {sizes.by_row:,} rows; "
                f"{spread([run.by_row for run in runs], '.1f')}; in one call of executemany {at_once:.1f} s",
            ],
        )
        reread = Row(
            f"re-read of {cells} that are unchanged ÷ the first load, {kind}",
            "≤ 1.00",
            f"{again / first:.2f}",
            again / first <= 1,
            [f"{again:.2f} s; {spread([run.again for run in runs])}", f"{written:,} rows written"],
            is_wrong=written > 0,
        )
        rows += [compared, reread]
    return rows


def writers(sizes: Sizes) -> list[Row]:
    """Processes that each store a block of days of their own in one warehouse on PostgreSQL, all at once."""
    orgs, days = sizes.by_writer
    with empty("PostgreSQL") as database, ProcessPoolExecutor(sizes.writers, get_context("spawn")) as pool:
        alone = pool.submit(_write, database, orgs, days, 0).result()
        began = time.perf_counter()
        outcomes = list(pool.map(partial(_write, database, orgs, days), range(1, sizes.writers + 1)))
        seconds = time.perf_counter() - began
        with database.transaction(read_only=True) as connection:
            stored = connection.scalar(sa.select(sa.func.count()).select_from(tables.daily_sessions)) or 0
    done = outcomes.count("")
    return [
        Row(
            f"{sizes.writers} writers x {orgs * days:,} cells at once, PostgreSQL, done",
            f"{sizes.writers} of {sizes.writers}",
            f"{done} of {sizes.writers}",
            done == sizes.writers,
            [f"{seconds:.1f} s", *filter(None, [alone, *outcomes])],
            is_wrong=stored != orgs * days * (done + (not alone)),
        )
    ]


def _write(database: Database, orgs: int, days: int, number: int) -> str:
    """Store the block of days with this number as a load does. Returns the error, empty if there was none."""
    readings = _readings(orgs, days, FIRST_DAY + timedelta(number * days))
    by = Provenance("v2", datetime(2025, 6, 1, tzinfo=UTC), run_id=f"writer {number}")

    def store(connection: sa.Connection) -> None:
        writes.store_days(connection, ORGANIZATIONS, readings, by, partial(database.lock_days, connection))

    try:
        database.write(store, alone=False)
    except WarehouseError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class _Upsert:
    """Seconds for the same cells, and how many stored rows differ after they were read again unchanged.

    `by_row` is one statement per row, `at_once` one call with the parameters of all rows, which PostgreSQL's driver
    pipelines; both are scaled from a sample of the rows.
    """

    first: float
    again: float
    by_row: float
    at_once: float
    rows_written: int


def _upsert(kind: str, orgs: int, days: int, sample: int) -> _Upsert:
    """Store cells in a new warehouse, then again; then `sample` of them in the plain ways, scaled to all."""
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
        by_row = _store_plainly(database, [[cell] for cell in cells[:sample]])
    with empty(kind) as database:
        at_once = _store_plainly(database, [cells[:sample]])
    scale = len(cells) / sample
    return _Upsert(first, again, by_row * scale, at_once * scale, len(before ^ after))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _readings(orgs: int, days: int, first_day: date = FIRST_DAY) -> list[Reading]:
    org_ids = World(orgs, days).org_ids
    found = []
    for number in range(days):
        day = first_day + timedelta(number)
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        counts = {org_id: count(org, number) for org, org_id in enumerate(org_ids)}
        found.append(Reading(day, start, start + timedelta(1), sum(counts.values()), counts, how={}, expected=orgs))
    return found


def _store(database: Database, readings: Sequence[Reading], by: Provenance) -> None:
    with database.transaction() as connection:
        writes.store_days(connection, ORGANIZATIONS, readings, by)


def _store_plainly(database: Database, calls: Sequence[Sequence[dict[str, Any]]]) -> float:
    """Seconds for what SQLAlchemy's documentation shows: a statement, with the rows of each call as parameters."""
    table = tables.daily_sessions
    statement = insert(table)
    values = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    key = list(table.primary_key.columns)
    upserting = statement.on_conflict_do_update(index_elements=key, set_=values)
    with database.transaction() as connection:  # opened outside the timing, which is scaled
        return _timed(lambda: [connection.execute(upserting, cells) for cells in calls])


def _stored(database: Database) -> set[tuple[Any, ...]]:
    """Every cell and revision, including when and by which run it was stored."""
    with database.transaction(read_only=True) as connection:
        return {
            (table.name, *row)
            for table in (tables.daily_sessions, tables.session_revisions)
            for row in connection.execute(sa.select(table))
        }
