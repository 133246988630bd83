"""The demo: real runs that load from the sandbox into a warehouse and a Dagster instance in data/demo."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from pipelines.command import interrupts, runs
from pipelines.command.dagster_home import open_instance
from pipelines.command.exit_codes import WRONG_USE
from pipelines.command.live_progress import LiveProgress
from pipelines.command.screen import complain, is_json, say, show_table
from pipelines.command.status_screen import show_coverage
from pipelines.definitions import definitions_for
from pipelines.home import home, is_checkout
from pipelines.partitions import closed_days, daily_partitions
from pipelines.settings import Settings
from resources.database import Database
from resources.file_errors import obstacle
from resources.files import replacing
from resources.sandbox.server import Sandbox
from warehouse import reads
from warehouse.dimensions import ORGANIZATIONS

_OWN_FILES = ("warehouse.duckdb", "warehouse.duckdb.wal", "published", "dagster", ".env")


def directory() -> Path:
    """Where the demo's warehouse, snapshot, report and record of runs are."""
    return home() / "demo"


def run_demo(days: int, organizations: int, *, ui_port: int | None) -> None:
    """Load the last `days` days of a sandbox with `organizations` organizations and show them.

    Then serve the Dagster UI at `ui_port`, if there is one, until a signal. Exits with 1 if a run fails.
    """
    _remove_last_demo()
    was_of_enterprise = bool(os.environ.get("DEVIN_ENTERPRISE"))
    today = datetime.now(UTC).date()
    first_day = today - timedelta(days=days)
    with Sandbox(organizations=organizations) as source:
        _use_only(
            devin_api_url=source.url,
            devin_api_key=source.api_key,
            devin_start_date=first_day.isoformat(),
            warehouse_url=Database.url_of(directory() / "warehouse.duckdb"),
            devin_log_format="json" if is_json() else "text",
        )
        os.environ["DAGSTER_HOME"] = str(directory() / "dagster")
        settings = Settings.load()
        say(f"Using the sandbox instead of the Devin API. Loading {days} days of {organizations} organizations.")
        closed = closed_days(daily_partitions(settings))
        with LiveProgress() as progress, open_instance() as instance:
            definitions = definitions_for(settings, progress)
            outcomes = runs.run_days(definitions, instance, progress, settings, ORGANIZATIONS, closed)
        severities = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
        checks = [sentence for severity in severities for sentence in runs.failed_checks(outcomes, severity)]
        failures = [sentence for outcome in outcomes for sentence in outcome.failures]
        for sentence in failures + checks:
            complain(sentence, "not_loaded")
        if outcomes[-1].is_interrupted:
            complain("Interrupted. To see the demo, run the same command again.", "interrupted")
            raise SystemExit(interrupts.exit_code())
        if failures:
            raise SystemExit(1)
        _keep_start_date(first_day)
        report = directory() / "published" / "report.html"
        say(f"The report of the demo, to open in a browser: {report.as_uri()}")
        _show(settings)
        if ui_port is not None:
            ui = subprocess.Popen([sys.executable, "-m", "pipelines", "ui", "--port", str(ui_port)])
            for number in interrupts.SIGNALS:  # the UI stops its children first, and the sandbox lasts as long as it
                signal.signal(number, lambda number, _: ui.send_signal(number))
            if code := ui.wait():
                raise SystemExit(code)
        else:
            _show_next_steps(report, was_of_enterprise=was_of_enterprise)


def _remove_last_demo() -> None:
    """Remove what a demo writes, and nothing else that may be in its directory."""
    for path in (directory() / name for name in _OWN_FILES):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            found = obstacle(error, path)
            complain(
                f"The last demo's {path} cannot be removed: {found.why}. {found.fix} and run the same command again.",
                "not_removed",
            )
            raise SystemExit(WRONG_USE) from None


def _use_only(**values: str) -> None:
    """Set these variables and blank all other settings, so that neither the environment nor .env affects the demo.

    DEVIN_HOME stays: it says where the demo is.
    """
    for name in Settings.model_fields.keys() - {"devin_home"}:
        os.environ[name.upper()] = values.get(name, "")


def _keep_start_date(first_day: date) -> None:
    """Let commands that use the demo's data know when it begins: no earlier day is missing."""
    with replacing(directory() / ".env") as file:
        file.write(f"DEVIN_START_DATE={first_day}\n".encode())


_ORGANIZATIONS = """
select org_name, cast(sum(sessions_count) as bigint) as sessions,
    count(*) filter (where sessions_count > 0) as active_days
from daily_sessions inner join organizations using (org_id)
group by org_id, org_name order by sessions desc, org_name
"""
_WEEKS = """
select week, sessions_count as sessions, active_orgs, is_complete
from enterprise_weekly_sessions order by week desc
"""


def _show(settings: Settings) -> None:
    with settings.warehouse.transaction(read_only=True) as connection:
        days = closed_days(daily_partitions(settings))
        loaded = reads.loaded_days(connection, ORGANIZATIONS, days)
        show_coverage(reads.coverage(connection, ORGANIZATIONS, days, loaded), ORGANIZATIONS)
        for most, first, noun, sql in ((8, "Top", "organizations", _ORGANIZATIONS), (6, "Last", "weeks", _WEEKS)):
            result = connection.execute(sa.text(sql))
            rows = result.all()
            title = noun.capitalize() if len(rows) <= most else f"{first} {most} of {len(rows)} {noun}"
            show_table(title, list(result.keys()), rows[:most])


def _show_next_steps(report: Path, *, was_of_enterprise: bool) -> None:
    program = _from_here(Path(sys.executable).parent / "devin-sessions")
    demo = shlex.quote(str(directory()))
    none = " DEVIN_ENTERPRISE=" if was_of_enterprise else ""  # or its names would be looked for among the demo's
    for line in (
        "What to try next: the same data in the Dagster UI,",
        f"  {program} demo --ui",
        "or in SQL, in this shell:",
        f"  export DEVIN_HOME={demo}{none} WAREHOUSE_URL=duckdb:///warehouse.duckdb",
        f'  {program} query "select * from enterprise_sessions order by day desc limit 7"',
        f"  {program} status",
        *(["README.md, “Real use”, leads from a key to a nightly schedule."] if is_checkout() else []),
        f"Report: {_from_here(report)}",
    ):
        say(line)


def _from_here(path: Path) -> str:
    """The path as it can be typed in the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
