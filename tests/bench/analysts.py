"""Measures analysts' queries on a published snapshot."""

import re
import statistics
import time
from pathlib import Path

import sqlalchemy as sa

from resources.database import Database
from tests.bench.databases import history
from tests.bench.sizes import Sizes
from tests.bench.source import PROJECT
from tests.bench.table import Row
from warehouse import tables

LATELY = 28  # days


def analysts(sizes: Sizes) -> list[Row]:
    """Analysts' queries on the snapshot of a long history, each timed from opening it to the last row."""
    stored = history("DuckDB", sizes.history, sizes.times, sizes.seed)
    seconds = {
        question: statistics.median(_seconds_of(stored.snapshot, sql) for _ in range(sizes.times))
        for question, sql in _questions(PROJECT / "docs" / "sql.md").items()
    }
    slowest = max(seconds.values())
    notes = [f"{took:.2f} s: {question}" for question, took in sorted(seconds.items(), key=lambda item: -item[1])]
    what = f"slowest question of an analyst, {stored.cells:,} cells, DuckDB, s"
    return [Row(what, "≤ 1.0", f"{slowest:.2f}", slowest <= 1, notes)]


def _questions(page: Path) -> dict[str, str]:
    """Analysts' queries: those of docs/sql.md by their first comment, and one on every value of each view."""
    found = {}
    for number, block in enumerate(re.findall(r"```sql\n(.+?)```", page.read_text(encoding="utf-8"), re.DOTALL), 1):
        for statement in filter(None, (part.strip() for part in block.split(";"))):
            comment = re.match(r"-- (.+)", statement)
            found[f"docs/sql.md: {comment[1]}" if comment else f"docs/sql.md: example {number}"] = statement
    found[f"session_grid, the last {LATELY} days"] = f"select * from session_grid where day > current_date - {LATELY}"
    for view in (*tables.views.sorted_tables, tables.enterprise_sessions):
        found[f"{view.name}, every value"] = _every_value(view)
    return found


def _every_value(relation: sa.Table) -> str:
    return f"select {', '.join(f'count({column.name})' for column in relation.columns)} from {relation.name}"


def _seconds_of(snapshot: Path, sql: str) -> float:
    """Seconds from opening the snapshot to the last row."""
    began = time.perf_counter()
    with Database(url=f"duckdb:///{snapshot}").transaction(read_only=True) as connection:
        connection.exec_driver_sql(sql).fetchall()
    return time.perf_counter() - began
