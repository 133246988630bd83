"""The `devin-sessions` command: its subcommands, their arguments and help texts. Exit codes are in `exit_codes`.

A subcommand imports what it needs when it runs: Dagster takes seconds, which help, completion and queries don't need.
"""

import json
import os
import threading
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.command import interrupts
from pipelines.command.arguments import Command, Group
from pipelines.command.days_meant import days_meant, refuse_contradictions, refuse_other_words
from pipelines.command.exit_codes import MISSING, WrongUse
from pipelines.command.own_group import lead_own_group, run_in_own_group
from pipelines.command.screen import (
    complain,
    is_json,
    say,
    show_findings,
    show_table,
    starting_dagster,
)

if TYPE_CHECKING:
    from pipelines.settings import Settings

MAX_ROWS_SHOWN = 200


app = typer.Typer(cls=Group, no_args_is_help=True, pretty_exceptions_enable=False)
_OPTIONS = {"help_option_names": ["-h", "--help"]}


def _load_settings() -> "Settings":
    """The settings, after what there is to say of variables that are none: one may be why another is refused."""
    from pipelines.env_files import unknown_names
    from pipelines.settings import Settings, setting_names

    for sentence in unknown_names(setting_names()):
        complain(sentence, "unknown_setting")
    return Settings.load()


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"devin-sessions {version('devin-session-metrics')}")
        raise typer.Exit


@app.callback(context_settings=_OPTIONS)
def devin_sessions(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Daily Devin session counts per organization, in a SQL warehouse."""


@app.command("backfill", cls=Command, context_settings=_OPTIONS)
def load_days(
    first: Annotated[
        str, typer.Argument(metavar="FIRST", help="A day, such as 2025-01-31 or yesterday, or a period (see above).")
    ] = "",
    last: Annotated[str, typer.Argument(metavar="LAST", help="The last day or period of a range.")] = "",
    missing: Annotated[
        bool, typer.Option("--missing", help="Load every day since DEVIN_START_DATE that isn't loaded yet.")
    ] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Also reload days that are already loaded.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many requests it takes, and how long at some rates.")
    ] = False,
) -> None:
    """Load the days from FIRST to LAST that aren't loaded yet, and report what is still missing.

    A period is a week (2025-W05), a month (2025-01), a year (2025), or the last closed days (-7d, -2w).

    Give a day or a period, FIRST and LAST, or --missing.
    """
    words = [word for word in (first, last) if word]
    refuse_contradictions(words, missing=missing, refresh=refresh)
    refuse_other_words(words)
    with starting_dagster():
        from pipelines.command.backfill import backfill
        from pipelines.command.dry_run import dry_run as plan
        from pipelines.partitions import closed_days, daily_partitions
    settings = _load_settings()
    days = closed_days(daily_partitions(settings))
    command = "devin-sessions backfill --missing"
    if not missing:
        days = days_meant(words, days, settings.devin_start_date)
        command = f"devin-sessions backfill {days[0]} {days[-1]}" + (" --refresh" if refresh else "")
    if dry_run:
        plan(settings, days, refresh=refresh)
    elif code := backfill(settings, days, command, refresh=refresh):
        raise typer.Exit(code)


@app.command("status", cls=Command, context_settings=_OPTIONS)
def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Show how much of history is loaded and proven, the last runs, the next run, and what to do.

    Exit code 1 if there is anything to do.
    """
    with starting_dagster():
        from pipelines.command.dagster_home import HomeUnusable, home_exists, open_instance
        from pipelines.command.status import status
        from pipelines.command.status_screen import show_calendar, show_coverage, show_runs
    settings = _load_settings()
    try:
        with open_instance() if home_exists() else nullcontext() as instance:
            found = status(settings, instance)
    except HomeUnusable as error:
        found = status(settings, None)
        found = replace(found, schedule="unknown", to_do=[*found.to_do, str(error)])
    if as_json or is_json():
        typer.echo(json.dumps(found.as_fields(), default=lambda value: value.isoformat()))
    else:
        if found.enterprise:
            say(f"Enterprise: {found.enterprise}")
        for dimension, state in found.dimensions.items():
            show_coverage(state.coverage, dimension)
            show_calendar(state.days)
        show_runs(found)
        for sentence in found.to_do:
            say(sentence)
    if found.to_do:
        raise typer.Exit(MISSING)


@app.command("probe", cls=Command, context_settings=_OPTIONS)
def probe_source(
    until: Annotated[
        str, typer.Option(metavar="DAY", help="Last of the seven days to probe. Default: the last closed day.")
    ] = "yesterday",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, for programs.")] = False,
) -> None:
    """Send a few requests to the API and report how it behaves and what to set. Stores no counts.

    Exit code 1 if a finding is bad, or if the API returns nothing usable.
    """
    refuse_other_words([until])
    with starting_dagster():
        from pipelines.command.probe import days_to_probe, impatient, probe
        from pipelines.partitions import closed_days, daily_partitions
        from resources.calls import Calls
    settings = _load_settings()
    closed = closed_days(daily_partitions(settings))
    days = days_to_probe(settings, closed, days_meant([until], closed, settings.devin_start_date)[-1])
    calls = Calls()
    findings = probe(impatient(settings, "probe"), settings, days, calls)
    if as_json or is_json():
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        show_findings(findings)
    if findings[0].verdict == "unknown" or any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(MISSING)


@app.command(cls=Command, context_settings=_OPTIONS)
def query(
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL",
            show_default=False,
            help='The query, such as "select * from weekly_sessions". Default: what comes in by a pipe.',
        ),
    ] = "-",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", readable=False, help="Read the query from this file.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header, for programs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array with one object per row.")] = False,
    for_excel: Annotated[
        bool, typer.Option("--excel", help="Print CSV for Excel and other spreadsheets: no text becomes a formula.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write a .csv, .json or .parquet file, with all rows, instead."
        ),
    ] = None,
) -> None:
    """Query the published snapshot, or the warehouse if it is on a server, with SQL. Read-only."""
    from pipelines.command.query import first_rows, read_sql, run_query
    from pipelines.command.query_output import chosen_format, write, write_file

    form = chosen_format(output, csv=as_csv, json=as_json, excel=for_excel)
    settings, sql = _load_settings(), read_sql(sql, file)
    with run_query(settings, sql) as result:
        if output and form:
            number = write_file(result, form, output)
            say(f"{number:,} {'row' if number == 1 else 'rows'} written to {output}.", "written", rows=number)
        elif form:
            write(result, form)
        else:
            rows, has_more = first_rows(result, MAX_ROWS_SHOWN)
            show_table("", result.names, rows)
            if has_more:
                say(f"Only the first {MAX_ROWS_SHOWN} rows are shown. To get all of them, add --csv or -o FILE.csv.")


@app.command("restore", cls=Command, context_settings=_OPTIONS)
def restore_warehouse() -> None:
    """Rebuild a damaged warehouse from its own rows if they can be read, otherwise from its published copies.

    Exit code 1 if something could not be recovered; the output then gives the command that loads it.
    """
    with starting_dagster():
        from pipelines.command.restore import restore
    done = restore(_load_settings())
    for sentence in done.done:
        say(sentence, "restored")
    for sentence in done.missing:
        complain(sentence, "not_restored")
    if done.missing:
        raise typer.Exit(MISSING)


@app.command(cls=Command, context_settings=_OPTIONS)
def ui(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 for a free one.")] = 3000,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve the Dagster UI on this machine, and run the daemon for the schedule, until Ctrl-C."""
    if lifeline is None:
        raise typer.Exit(run_in_own_group("ui", "--port", str(port)))
    lead_own_group(lifeline)
    with starting_dagster():
        from pipelines.command.dagster_home import dagster_home, open_instance
        from pipelines.command.webserver import serve
    settings = _load_settings()
    with open_instance(for_the_ui=True) as instance:
        os.chdir(dagster_home())  # Dagster leaves its scratch files in the working directory
        serve(instance, settings, port)


@app.command(cls=Command, context_settings=_OPTIONS)
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 for a free one.")] = 8787,
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
    from pipelines.home import home
    from resources.database import Database
    from resources.devin_key import KEY_VARIABLE
    from resources.sandbox.server import Sandbox

    data = home() / "sandbox"
    with ExitStack() as running:
        try:
            source = running.enter_context(Sandbox(seed=seed, organizations=organizations, port=port))
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise WrongUse(f"The sandbox cannot listen on port {port}: {why}. Choose another with --port.") from None
        if fail_status is not None:
            source.fail(status=fail_status, chance=fail_chance, times=None)
        if delay:
            source.fail(delay=delay, times=None)
        say(f"The sandbox is running at {source.url}. To use it, run in another terminal:")
        say(f"  export DEVIN_API_URL={source.url} {KEY_VARIABLE}={source.api_key}")
        say(f"  # or {KEY_VARIABLE}={source.service_key} for v3 of the API")
        say(f"  export WAREHOUSE_URL={Database.url_of(data / 'warehouse.duckdb')} DAGSTER_HOME={data / 'dagster'}")
        interrupts.raise_keyboard_interrupt()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            say(f"Stopped after {len(source.requests):,} requests.")


@app.command(cls=Command, context_settings=_OPTIONS)
def demo(
    days: Annotated[int, typer.Option(min=1, max=690, help="Number of days, up to yesterday.")] = 90,
    organizations: Annotated[int, typer.Option(min=1, max=500, help="Number of organizations.")] = 12,
    with_ui: Annotated[
        bool, typer.Option("--ui", help="Then serve the Dagster UI for the demo, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for --ui; 0 for a free one.")] = 3000,
) -> None:
    """Load invented sessions into data/demo and show the result. Needs no key; touches nothing else."""
    with starting_dagster():
        from pipelines.command.demo import run_demo
    run_demo(days, organizations, ui_port=port if with_ui else None)
