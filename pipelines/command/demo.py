"""The demo: real runs that load from the sandbox into a warehouse and a Dagster instance in data/demo."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from pipelines.command import runs
from pipelines.command.dagster_home import open_instance
from pipelines.command.screen import LiveProgress, complain, say, set_output, show_coverage, show_table
from pipelines.definitions import definitions_for
from pipelines.partitions import closed_days, daily_partitions
from pipelines.settings import PROJECT, Settings
from resources.database import Database
from resources.sandbox.server import Sandbox
from warehouse import reads
from warehouse.dimensions import ORGANIZATIONS

DIRECTORY = PROJECT / "data" / "demo"


def run_demo(days: int, organizations: int, *, with_ui: bool) -> None:
    """Load the last `days` days of a sandbox with `organizations` organizations and show them.

    Exits with 1 if a run fails.
    """
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    today = datetime.now(UTC).date()
    first_day = today - timedelta(days=days)
    with Sandbox(organizations=organizations) as source:
        _use_only(
            devin_api_url=source.url,
            devin_api_key=source.api_key,
            devin_start_date=first_day.isoformat(),
            warehouse_url=f"duckdb:///{DIRECTORY}/warehouse.duckdb",
        )
        set_output(json_lines=False)
        os.environ["DAGSTER_HOME"] = str(DIRECTORY / "dagster")
        settings = Settings.load()
        say(f"Using the sandbox instead of the Devin API. Loading {days} days of {organizations} organizations.")
        closed = closed_days(daily_partitions(settings))
        with LiveProgress() as progress, open_instance() as instance:
            definitions = definitions_for(settings, progress)
            outcome = runs.run_range(definitions, instance, progress, ORGANIZATIONS, closed[0], closed[-1])
        severities = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
        checks = [sentence for severity in severities for sentence in runs.failed_checks([outcome], severity)]
        for sentence in outcome.failures + checks:
            complain(sentence, "not_loaded")
        if outcome.failures:
            raise SystemExit(1)
        _show(settings)
        if with_ui:
            subprocess.run([sys.executable, "-m", "pipelines", "ui"], check=False)
        else:
            _show_next_steps()


def _use_only(**values: str) -> None:
    """Set these variables and blank all other settings, so that neither the environment nor .env affects the demo."""
    for name in Settings.model_fields:
        os.environ[name.upper()] = values.get(name, "")


_TOP_ORGANIZATIONS = """
select org_name, sum(sessions_count) as sessions, count(*) filter (where sessions_count > 0) as active_days
from daily_sessions inner join organizations using (org_id)
group by org_id, org_name order by sessions desc limit 8
"""
_LAST_WEEKS = """
select week, sum(sessions_count) as sessions, count(*) filter (where sessions_count > 0) as active_orgs,
    bool_and(is_complete) as is_complete
from weekly_sessions group by week order by week desc limit 6
"""


def _show(settings: Settings) -> None:
    with Database(url=settings.warehouse_url).transaction(read_only=True) as connection:
        days = closed_days(daily_partitions(settings))
        loaded = reads.loaded_days(connection, ORGANIZATIONS, days)
        show_coverage(reads.coverage(connection, ORGANIZATIONS, days, loaded), ORGANIZATIONS)
        for title, sql in (("Top organizations", _TOP_ORGANIZATIONS), ("Last weeks", _LAST_WEEKS)):
            result = connection.execute(sa.text(sql))
            show_table(title, list(result.keys()), result.all())


def _show_next_steps() -> None:
    command = Path(sys.executable).parent / "devin-sessions"
    program = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
    say("What to try next:")
    in_the_ui, report = f"{program} demo --ui", f"{(DIRECTORY / 'published' / 'report.html').relative_to(PROJECT)}"
    width = max(map(len, (in_the_ui, report)))
    say(f"  {report:{width}}   the report, to open in a browser")
    say(f"  {in_the_ui:{width}}   the same data in the Dagster UI")
    say(f"  {'README.md, “Real use”':{width}}   from a key to a nightly schedule")
    say(
        f"  WAREHOUSE_URL=duckdb:///{DIRECTORY.relative_to(PROJECT)}/warehouse.duckdb "
        f'{program} query "select * from enterprise_sessions order by day desc limit 7"'
    )
