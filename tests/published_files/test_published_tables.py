"""What is in the published files: the same from every database, and what the page's statements read."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa

from pipelines.behind import behind
from resources.database import Database
from resources.sandbox.server import Sandbox
from tests.support.loads import fill
from tests.support.postgresql import PostgreSQL
from tests.support.published_versions import later, published, read_version, restate
from tests.support.warehouse import migrated
from tests.support.world import World, new_world
from warehouse import arrow, tables

PAGE = Path(__file__).parents[2] / "docs" / "publishing.md"


@pytest.fixture
def same_on_postgresql(filled: Database, postgresql: PostgreSQL) -> Iterator[Database]:
    """The rows of the DuckDB warehouse in another order on PostgreSQL, with names that sort by no alphabet."""
    url = postgresql.database(unprivileged=True)
    database = migrated(Database(url=url))
    names = ["Zebra", "apple", "Äpfel", 'O\'Hara \t"x"', "東京 🦓"]
    with filled.transaction() as source, database.transaction() as target:
        ids = source.scalars(sa.select(tables.organizations.c.org_id)).all()
        for org_id, name in zip(ids, names, strict=True):
            chosen = tables.organizations.c.org_id == org_id
            source.execute(sa.update(tables.organizations).where(chosen).values(org_name=name))
        source.exec_driver_sql(
            "insert into contradictions select day, null, day, day, 1, 2, current_timestamp, 'run' from daily_totals "
            "union all select day, 'org-B', day, day, 1, 2, current_timestamp, 'a' from daily_totals "
            "union all select day, 'org-a', day, day, 1, 2, current_timestamp, 'B' from daily_totals"
        )
        for table in tables.metadata.sorted_tables:
            target.execute(sa.delete(table))
            rows = [dict(row) for row in source.execute(sa.select(table)).mappings()]
            if rows:
                target.execute(sa.insert(table), rows[::-1])
    yield database
    postgresql.drop(url)


def test_the_files_have_the_same_columns_types_and_rows_in_the_same_order_from_both_databases(
    filled: Database, same_on_postgresql: Database, tmp_path: Path
) -> None:
    versions = {}
    for name, database in {"duckdb": filled, "postgresql": same_on_postgresql}.items():
        published(f"{tmp_path}/{name}", database)
        versions[name] = read_version(f"{tmp_path}/{name}")
    from_duckdb, from_postgresql = versions["duckdb"], versions["postgresql"]
    assert from_duckdb and from_postgresql
    assert from_duckdb.tables.keys() == from_postgresql.tables.keys()
    for name, table in from_duckdb.tables.items():
        assert from_postgresql.tables[name].schema == table.schema, name
        assert from_postgresql.tables[name].equals(table), name
    assert from_duckdb.tables["contradictions"].num_rows == 15
    assert from_duckdb.tables["enterprise_sessions"].schema.field("week_over_week_change").type == pa.float64()


def test_only_the_months_that_changed_on_postgresql_are_written_again(
    same_on_postgresql: Database, tmp_path: Path
) -> None:
    first = published(f"{tmp_path}/shared", same_on_postgresql).manifest
    restate(same_on_postgresql, 7)
    second = published(f"{tmp_path}/shared", same_on_postgresql, later(1)).manifest
    changed = {file.path.split(".")[0] for file in second.files} & {
        path.split(".")[0] for path in second.paths - first.paths
    }
    assert changed == {"files/daily_sessions/2025-02", "files/weekly_sessions"}


def test_rows_from_postgresql_come_in_batches(same_on_postgresql: Database) -> None:
    with same_on_postgresql.transaction() as connection:
        connection.exec_driver_sql(
            "insert into contradictions select '2025-01-01', 'org-' || n, '2025-01-01', '2025-01-01', 1, 2, now(), 'r' "
            "from generate_series(1, 25000) as n"
        )
        found = arrow.rows_of(connection, tables.contradictions)
    assert found.num_rows == 25_015
    assert [len(batch) for batch in found.to_batches()] == [10_000, 10_000, 5_015]


def test_text_from_postgresql_is_ordered_by_its_bytes_whatever_the_language_of_the_server(
    same_on_postgresql: Database,
) -> None:
    sent: list[str] = []
    with same_on_postgresql.transaction(read_only=True) as connection:
        sa.event.listen(connection, "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
        arrow.rows_of(connection, tables.daily_sessions)
    (order,) = (statement.partition("ORDER BY ")[2] for statement in sent)
    assert order == 'daily_sessions.day, daily_sessions.org_id COLLATE "C"'


@pytest.mark.parametrize("name", ["shared", "Größe & 100% #1 [*]? it"])
def test_the_statement_for_duckdb_on_the_page_reads_the_latest_version(
    filled: Database, tmp_path: Path, name: str
) -> None:
    address = f"{tmp_path}/{name}"
    restate(filled, 3)
    published(address, filled)
    restate(filled, 4)
    published(address, filled, later(1))
    (statement,) = re.findall(r"```sql\n(set variable .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert "s3://company-reports/devin" in statement
    with duckdb.connect() as connection:
        (found,) = connection.execute(statement.replace("s3://company-reports/devin", address)).fetchall()
        with filled.transaction(read_only=True) as warehouse:
            daily = warehouse.execute(sa.text("select count(*), sum(sessions_count) from daily_sessions")).one()
    assert found == tuple(daily)


def test_a_run_publishes_from_both_databases_and_what_is_loaded_later_is_behind(
    each_world: World, tmp_path: Path
) -> None:
    world, address = each_world, f"{tmp_path}/shared"
    world.configure(devin_publish_url=address)
    result = world.run("2025-02-01", "2025-02-02")
    assert result.success, world.failures(result)
    version = read_version(address)
    assert version is not None
    counts = version.tables["daily_sessions"].to_pylist()
    assert {(row["day"], row["org_id"]): row["sessions_count"] for row in counts} == world.truth(
        "2025-02-01", "2025-02-02"
    )
    assert version.manifest["run_id"] == result.run_id
    assert "published_files" not in behind(world.settings).assets
    fill(world, "2025-02-03", "2025-02-03")
    assert "published_files" in behind(world.settings).assets


def test_days_that_are_not_published_from_a_server_are_found_whatever_the_publishers_clock_said(
    sandbox: Sandbox, postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, address, now = postgresql.database(unprivileged=True), f"{tmp_path}/shared", datetime.now(UTC)
    with new_world(sandbox, tmp_path, monkeypatch, url) as world:
        world.configure(devin_publish_url=address, devin_report_path="off")
        for number, hours in enumerate((1, -1), start=1):
            fill(world, f"2025-02-0{number}", f"2025-02-0{number}")
            assert "published_files" in behind(world.settings).assets
            published(address, world.database, now + timedelta(hours=hours))
            assert "published_files" not in behind(world.settings).assets
    postgresql.drop(url)
