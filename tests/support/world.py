"""A sandbox, a warehouse and a Dagster instance, with which a test runs the real job."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from pipelines import names
from pipelines.asset_keys import asset_key
from pipelines.definitions import definitions_for
from pipelines.loading.counted_ids import LIST_IS_WHOLE
from pipelines.loading.progress import Progress
from pipelines.partitions import Day, as_days, daily_partitions
from pipelines.schedules import range_tags
from pipelines.settings import Settings
from resources.database import Database
from resources.sandbox.contract import SESSIONS_PATH
from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from tests.support.instances import empty_instance
from tests.support.warehouse import make_missing_warehouse
from warehouse.dimensions import DIMENSIONS


@dataclass
class World:
    """One test's own sandbox, warehouse and Dagster instance."""

    source: Sandbox
    directory: Path
    environment: pytest.MonkeyPatch
    closing: ExitStack
    progress: Progress = field(default_factory=Progress)

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """Where runs in this process are recorded."""
        return self.closing.enter_context(empty_instance())

    def configure(self, **variables: str) -> None:
        """Set environment variables, named in lower case."""
        for name, value in variables.items():
            self.environment.setenv(name.upper(), value)

    @property
    def settings(self) -> Settings:
        return Settings.load()

    @property
    def database(self) -> Database:
        return self.settings.warehouse

    @property
    def definitions(self) -> dg.Definitions:
        self.progress = Progress()
        return definitions_for(self.settings, self.progress)

    def run(self, first: str, last: str) -> dg.ExecuteInProcessResult:
        """Run the job over these days."""
        return self.run_with_tags(range_tags(first, last))

    def load(
        self, first: str, last: str, complete_before: date | None = None, *, judged: bool = True
    ) -> dg.ExecuteInProcessResult:
        """Run only the loads of the job over these days, in half the time: no rollup, no snapshot.

        Without the checks of what is stored, unless `judged`, it takes three quarters of that.
        """
        return self.load_with_tags(range_tags(first, last, complete_before), judged=judged)

    def load_with_tags(self, tags: dict[str, Any], *, judged: bool = True) -> dg.ExecuteInProcessResult:
        definitions = self.definitions
        loads = {name for dimension in DIMENSIONS for name in (dimension.listed.name, dimension.cells.name)}
        assets = [
            key for key in definitions.resolve_asset_graph().get_all_asset_keys() if key.to_user_string() in loads
        ]
        return self._run(definitions, tags, assets, judged=judged)

    def run_with_tags(self, tags: dict[str, Any]) -> dg.ExecuteInProcessResult:
        return self._run(self.definitions, tags)

    def _run(
        self,
        definitions: dg.Definitions,
        tags: dict[str, Any],
        assets: list[dg.AssetKey] | None = None,
        *,
        judged: bool = True,
    ) -> dg.ExecuteInProcessResult:
        make_missing_warehouse(self.database)
        job = definitions.resolve_job_def(names.job(self.settings))
        if assets:
            checks = {key for key in job.asset_layer.asset_graph.asset_check_keys if key.name == LIST_IS_WHOLE}
            job = job.get_subset(asset_selection={*assets}, asset_check_selection=None if judged else checks)
        return job.execute_in_process(
            instance=self.instance,
            tags=tags,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query on the warehouse."""
        with self.database.transaction(read_only=True) as connection:
            return [tuple(row) for row in connection.execute(sa.text(sql))]

    def days(self, first: str, last: str) -> list[Day]:
        start, end = date.fromisoformat(first), date.fromisoformat(last)
        keys = [(start + timedelta(n)).isoformat() for n in range((end - start).days + 1)]
        return as_days(daily_partitions(self.settings), keys)

    def truth(self, first: str, last: str) -> dict[tuple[date, str], int]:
        """Every cell, as the sandbox has it."""
        return {
            (day.day, o.org_id): self.source.truth(day.start, day.end, [o.org_id])
            for day in self.days(first, last)
            for o in self.source.organizations
        }

    def cells(self) -> dict[tuple[date, str], int]:
        """Every cell, as the warehouse has it."""
        rows = self.rows("select day, org_id, sessions_count from daily_sessions")
        return {(day, org_id): count for day, org_id, count in rows}

    def asked(self) -> list[LoggedRequest]:
        """The requests for counts that the sandbox received."""
        return [request for request in self.source.requests if request.path == SESSIONS_PATH]

    def materialized_days(self) -> set[str]:
        return set(self.instance.get_materialized_partitions(asset_key(self.settings, "daily_sessions")))

    def failures(self, result: dg.ExecuteInProcessResult) -> str:
        """The error messages of a run's failed steps."""
        messages = []
        for event in result.get_step_failure_events():
            failure = event.step_failure_data.user_failure_data
            messages.append(str(failure.description) if failure else str(event.step_failure_data.error))
        return "\n".join(messages)

    def checks(self, result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
        return {check.check_name: check for check in result.get_asset_check_evaluations()}


@contextmanager
def new_world(source: Sandbox, directory: Path, environment: pytest.MonkeyPatch, warehouse_url: str) -> Iterator[World]:
    """A world whose files are in this directory, with the settings of one that gives up on a request soon."""
    for name in Settings.model_fields:
        environment.setenv(name.upper(), "")
    environment.setenv("DAGSTER_EVENT_BATCH_SIZE", "")  # so that what the definitions set is undone after the test
    environment.delenv("DAGSTER_EVENT_BATCH_SIZE")
    environment.setenv("DEVIN_API_URL", source.url)
    environment.setenv("DEVIN_API_KEY", source.api_key)
    environment.setenv("DEVIN_MAX_TRIES", "1")
    environment.setenv("DEVIN_PATIENCE_SECONDS", "1")
    environment.setenv("WAREHOUSE_URL", warehouse_url)
    environment.setenv("DAGSTER_HOME", str(directory / "dagster"))
    environment.setenv("DEVIN_REPORT_PATH", "off")
    with ExitStack() as closing:
        yield World(source, directory, environment, closing)


@contextmanager
def template_world(directory: Path, organizations: int = 5) -> Iterator[World]:
    """A world on DuckDB outside any test. What it leaves in this directory is for tests to copy into their own."""
    with (
        Sandbox(organizations=organizations) as source,
        pytest.MonkeyPatch.context() as environment,
        new_world(source, directory, environment, Database.url_of(directory / "warehouse.duckdb")) as world,
    ):
        yield world


def total(world: World, first: str, last: str) -> int:
    return sum(world.truth(first, last).values())


def single_day_requests(world: World) -> list[LoggedRequest]:
    """The requests for the counts of one day, without those for a sum over several days."""
    return [q for q in world.asked() if q.start and q.end and q.end - q.start < timedelta(hours=26)]
