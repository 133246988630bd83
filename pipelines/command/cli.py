"""The `devin-sessions` command: its subcommands, their arguments and help texts. Exit codes are in `exit_codes`."""

import codecs
import errno
import io
import json
import logging
import os
import sys
import threading
import traceback
import warnings
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import date, timedelta
from typing import Annotated, NoReturn

import dagster as dg
import typer

from pipelines import env_files
from pipelines.command import interrupts
from pipelines.command.backfill import backfill
from pipelines.command.dagster_home import HomeUnusable, dagster_home, home_exists, open_instance
from pipelines.command.exit_codes import MISSING, WRONG_USE, exit_code_for, user_message
from pipelines.command.probe import DAYS, PATIENCE_SECONDS, probe
from pipelines.command.query import QueryRefused, first_rows, run_query, write_csv
from pipelines.command.restore import restore
from pipelines.command.screen import (
    complain,
    last_words,
    say,
    set_output,
    show_calendar,
    show_coverage,
    show_findings,
    show_runs,
    show_table,
)
from pipelines.command.status import status
from pipelines.definitions import devin_api_for
from pipelines.partitions import as_days, closed_days, daily_partitions
from pipelines.settings import Settings, logs_json
from resources.calls import Calls
from resources.devin_key import KEY_VARIABLE

MAX_ROWS_SHOWN = 200

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Daily Devin session counts per organization, in a SQL warehouse.",
)


def main() -> None:
    """The entry point. Shows a sentence instead of a traceback for every error that a user can fix."""
    # At each start, Dagster warns that features which the project uses are beta; the tests would notice a change.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    # Keeps libraries' own logs off the user's screen; what matters arrives as an exception.
    logging.getLogger().addHandler(logging.NullHandler())
    is_json = False
    _show_what_the_terminal_cannot()
    try:
        is_json = logs_json()
        set_output(json_lines=is_json)
        interrupts.set_last_words(last_words)
        for warning in env_files.warnings():
            complain(warning, "env_file")
        # In standalone mode Typer prints errors itself, and not as JSON.
        sys.exit(app(standalone_mode=not is_json))
    except Exception as error:
        code = exit_code_for(error)
        if code is not None:
            _stop(user_message(error), code)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            _discard_output()
            _stop(f"The output cannot be written: {error.strerror}.", MISSING)
        if not is_json:
            raise
        complain(f"{type(error).__name__}: {error}", "crashed", traceback=traceback.format_exc())
        raise SystemExit(MISSING) from None
    finally:
        interrupts.set_last_words(str)


@app.command("backfill")
def load_days(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="First day, such as 2025-01-01.")] = "",
    last: Annotated[str, typer.Argument(metavar="LAST", help="Last day, inclusive.")] = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="Also reload days that are already loaded.")] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Load every day since DEVIN_START_DATE that isn't loaded yet.")
    ] = False,
) -> None:
    """Load the days from FIRST to LAST that aren't loaded yet, and report what is still missing.

    Give either FIRST and LAST, or --missing.
    """
    settings = Settings.load()
    if bool(first and last) == missing or (missing and (first or refresh)):
        _stop("Give FIRST and LAST, or use --missing to load every day that isn't loaded yet.", WRONG_USE)
    if missing:
        days = closed_days(daily_partitions(settings))
        command = "devin-sessions backfill --missing"
    else:
        days = _days_between(_day("FIRST", first), _day("LAST", last), settings)
        command = f"devin-sessions backfill {first} {last}" + (" --refresh" if refresh else "")
    if code := backfill(settings, days, command, refresh=refresh):
        raise typer.Exit(code)


@app.command("status")
def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Show how much of history is loaded and proven, the last runs, the next run, and what to do.

    Exit code 1 if there is anything to do.
    """
    settings = Settings.load()
    try:
        with open_instance() if home_exists() else nullcontext() as instance:
            found = status(settings, instance)
    except HomeUnusable as error:
        found = status(settings, None)
        found = replace(found, schedule="unknown", to_do=[*found.to_do, str(error)])
    if as_json or settings.devin_log_format == "json":
        whole = {
            **{
                dimension.plural: asdict(state.coverage)
                | {"days": {f"{day}": is_ for day, is_ in state.days.items()}, "unavailable": state.unavailable}
                | {"moved": state.moved}
                for dimension, state in found.dimensions.items()
            },
            "runs": [asdict(run) for run in found.runs],
            "schedule": found.schedule,
            "next_tick": found.next_tick,
            "behind": found.behind,
            "to_do": found.to_do,
        }
        typer.echo(json.dumps(whole, default=lambda value: value.isoformat()))
    else:
        for dimension, state in found.dimensions.items():
            show_coverage(state.coverage, dimension)
            show_calendar(state.days)
        show_runs(found.runs, found.schedule, found.next_tick)
        for sentence in found.to_do:
            say(sentence)
    if found.to_do:
        raise typer.Exit(MISSING)


@app.command("probe")
def probe_source(
    until: Annotated[
        str, typer.Option(metavar="DAY", help="Last of the seven days to probe. Default: the last closed day.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, for programs.")] = False,
) -> None:
    """Send a few requests to the API and report how it behaves and what to set. Stores nothing.

    Exit code 1 if a finding is bad, or if the API returns nothing usable.
    """
    settings = Settings.load()
    partitions = daily_partitions(settings)
    closed = closed_days(partitions)
    last = _day("DAY", until) if until else closed[-1]
    first = max(last - timedelta(days=DAYS - 1), settings.devin_start_date)
    keys = [day.isoformat() for day in _days_between(min(first, last), last, settings)]
    calls = Calls()
    patience = {"devin_patience_seconds": min(settings.devin_patience_seconds, PATIENCE_SECONDS)}
    findings = probe(devin_api_for(settings.model_copy(update=patience)), settings, as_days(partitions, keys), calls)
    if as_json or settings.devin_log_format == "json":
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        show_findings(findings)
    if findings[0].verdict == "unknown" or any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(MISSING)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help='The query, such as "select * from weekly_sessions".')],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header, for programs.")] = False,
    for_excel: Annotated[
        bool, typer.Option("--excel", help="Print CSV for Excel and other spreadsheets: no text becomes a formula.")
    ] = False,
) -> None:
    """Query the published snapshot, or the warehouse if it is on a server, with SQL. Read-only."""
    settings = Settings.load()
    if as_csv and for_excel:
        _stop("Choose either --csv, for programs, or --excel, for spreadsheets.", WRONG_USE)
    try:
        with run_query(settings, sql) as result:
            if as_csv or for_excel:
                write_csv(result, for_spreadsheet=for_excel)
                return
            rows, has_more = first_rows(result, MAX_ROWS_SHOWN)
            columns = result.columns
    except QueryRefused as error:
        _stop(str(error), MISSING if error.is_for_later else WRONG_USE)
    show_table("", columns, rows)
    if has_more:
        say(f"Only the first {MAX_ROWS_SHOWN} rows are shown. To get all of them, add --csv.")


@app.command("restore")
def restore_warehouse() -> None:
    """Rebuild a damaged warehouse from its own rows if they can be read, otherwise from its published copies.

    Exit code 1 if something could not be recovered; the output then gives the command that loads it.
    """
    done = restore(Settings.load())
    for sentence in done.done:
        say(sentence, "restored")
    for sentence in done.missing:
        complain(sentence, "not_restored")
    if done.missing:
        raise typer.Exit(MISSING)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 3000,
) -> None:
    """Serve the Dagster UI on this machine, and run the daemon for the schedule, until Ctrl-C."""
    Settings.load()
    from pipelines.command.webserver import (
        ADDRESS,
        CannotServe,
        serve,
    )  # here: it imports a web framework that no other command needs

    with open_instance(for_the_ui=True) as instance:
        say(f"The Dagster UI: http://{ADDRESS}:{port} (stop with Ctrl-C; the schedule runs as long as this command)")
        os.chdir(dagster_home())  # Dagster leaves its scratch files in the working directory
        try:
            serve(instance, port)
        except CannotServe as error:
            _stop(str(error), MISSING)


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(help="Port on this machine; 0 for a free one.")] = 8787,
    organizations: Annotated[int, typer.Option(min=1, help="Number of organizations.")] = 12,
    seed: Annotated[int, typer.Option(help="The same seed gives the same sessions.")] = 1,
    delay: Annotated[float, typer.Option(min=0, help="Seconds to wait before each response.")] = 0.0,
    fail_status: Annotated[
        int | None, typer.Option(min=400, max=599, help="HTTP status to fail with, such as 503.")
    ] = None,
    fail_chance: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests that fail with --fail-status.")
    ] = 0.1,
) -> None:
    """Serve invented sessions the way the Devin API serves real ones, until Ctrl-C."""
    from resources.sandbox.server import Sandbox  # here: it imports a web framework that no other command needs

    with Sandbox(seed=seed, organizations=organizations, port=port) as source:
        if fail_status is not None:
            source.fail(status=fail_status, chance=fail_chance, times=None)
        if delay:
            source.fail(delay=delay, times=None)
        say(f"The sandbox is running at {source.url}. To use it, run in another terminal:")
        say(f"  export DEVIN_API_URL={source.url} {KEY_VARIABLE}={source.api_key}")
        say(f"  # or {KEY_VARIABLE}={source.service_key} for v3 of the API")
        say("  export WAREHOUSE_URL=duckdb:///data/sandbox/warehouse.duckdb DAGSTER_HOME=$PWD/data/sandbox/dagster")
        interrupts.raise_keyboard_interrupt()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            say(f"Stopped after {len(source.requests):,} requests.")


@app.command()
def demo(
    days: Annotated[int, typer.Option(min=1, max=690, help="Number of days, up to yesterday.")] = 90,
    organizations: Annotated[int, typer.Option(min=1, max=500, help="Number of organizations.")] = 12,
    with_ui: Annotated[
        bool, typer.Option("--ui", help="Then serve the Dagster UI for the demo, until Ctrl-C.")
    ] = False,
) -> None:
    """Load invented sessions into data/demo and show the result. Needs no key; touches nothing else."""
    from pipelines.command.demo import run_demo  # here: it imports a web framework that no other command needs

    run_demo(days, organizations, with_ui=with_ui)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _discard_output() -> None:
    """Write the rest of standard output nowhere, so that it doesn't fail again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _show_what_the_terminal_cannot() -> None:
    """Show characters that an output's encoding lacks as escapes, such as \\u6771, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="backslashreplace")


def _stop(sentence: str, code: int) -> NoReturn:
    complain(sentence, "refused", exit_code=code)
    raise SystemExit(code)


def _day(name: str, value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        _stop(f"{name}={value} is not a date such as 2025-01-31.", WRONG_USE)


def _days_between(first: date, last: date, settings: Settings) -> list[date]:
    closed = closed_days(daily_partitions(settings))
    if first > last:
        _stop(f"The range is reversed: {first} is after {last}. Swap the two days.", WRONG_USE)
    if first < settings.devin_start_date:
        _stop(
            f"{first} is before DEVIN_START_DATE={settings.devin_start_date}. Start there, or set an earlier date.",
            WRONG_USE,
        )
    if not closed or last > closed[-1]:
        until = f"The last closed day is {closed[-1]}" if closed else "No day is closed yet"
        _stop(f"{last} is not over yet. {until}.", WRONG_USE)
    return [day for day in closed if first <= day <= last]


if __name__ == "__main__":
    main()
