"""What `status` and the demo show: how much is loaded and proven, the calendar of days, and the last runs."""

from collections.abc import Mapping
from datetime import date

from rich.text import Text

from pipelines.command.recorded_runs import what_of
from pipelines.command.screen import out, say, show_table
from pipelines.command.status import Status
from warehouse.dimensions import Dimension
from warehouse.reads import Coverage, DayState


def show_coverage(covered: Coverage, dimension: Dimension) -> None:
    """Print how much of the counts per organization, or per user, is loaded and proven."""
    rows = [
        ("days", f"{covered.first_day} to {covered.last_day}"),
        ("days loaded", f"{covered.days_loaded:,} of {covered.days_expected:,}"),
        ("days reconciled with the API's total", f"{covered.days_reconciled:,} of {covered.days_loaded:,}"),
        (dimension.plural, f"{covered.counted:,}"),
        ("sessions", f"{covered.sessions_count:,}"),
        ("last loaded", f"{covered.last_loaded_at:%Y-%m-%d %H:%M} UTC" if covered.last_loaded_at else "never"),
    ]
    show_table("", [f"per {dimension.noun}", ""], rows)


_MARKS: dict[DayState, tuple[str, str, str]] = {
    "proven": ("■#", "green", "loaded and proven"),
    "unattributed": ("▲^", "yellow", "loaded, sessions unattributed"),
    "contradiction": ("✗x", "bold red", "loaded, contradicted by the API"),
    "partial": ("◧/", "magenta", "partly loaded"),
    "missing": ("·.", "red", "missing"),
}
"""For each state its mark, and the one for outputs that can't show it; its style; its meaning."""


def _mark(state: DayState) -> str:
    return _MARKS[state][0][not out.encoding.startswith("utf")]


_CALENDAR_WIDTH = 2 + len("2025-01") + 2 + 31


def show_calendar(days: Mapping[date, DayState]) -> None:
    """Print one row per month with one mark per day, unless it is too wide, and below it what those marks mean."""
    months: dict[str, dict[int, DayState]] = {}
    margin = "  " if out.width >= _CALENDAR_WIDTH else ""
    for day, state in days.items():
        months.setdefault(f"{day:%Y-%m}", {})[day.day] = state
    for month, of_month in months.items():
        if out.is_terminal and out.width < _CALENDAR_WIDTH - 3:
            break
        line = Text(f"{margin}{month}{margin or ' '}")
        for number in range(1, 32):
            if on_day := of_month.get(number):
                line.append(_mark(on_day), style=_MARKS[on_day][1])
            else:
                line.append(" ")
        out.print(line, soft_wrap=True)
    legend = Text()
    for state, (_, style, meaning) in _MARKS.items():
        if number := sum(state_of_day == state for state_of_day in days.values()):
            legend.append("  ").append(_mark(state), style=style).append(f" {meaning} ({number:,})")
    out.print(legend, soft_wrap=not out.is_terminal)


def show_runs(found: Status) -> None:
    """Print the last runs, what is queued, and when the schedule starts the next run."""
    rows = [
        (
            f"{run.started_at:%Y-%m-%d %H:%M} UTC" if run.started_at else "never" if run.has_ended else "not yet",
            run.days or f"none: {run.rebuilt}",
            run.outcome,
            "" if run.seconds is None else f"{run.seconds:,.0f} s",
        )
        for run in found.runs
    ]
    if rows:
        show_table("Last runs", ["started", "days", "outcome", "took"], rows)
    if found.queued:
        say(f"Queued: {what_of(found.queued)}.")
    if found.backfills:
        say(f"Not finished: backfill {', '.join(found.backfills)} of the Dagster UI.")
    at = f"Next run: {found.next_tick:%Y-%m-%d %H:%M %Z}"
    say(
        {
            "running": f"{at}.",
            "not running": f"{at}, if the schedule is running by then. It isn't running now: start devin-sessions ui "
            "or, on a server, the daemon's service.",
            "unknown": f"{at}, if the schedule is running by then.",
            "switched off": "Next run: none, the schedule is switched off. Switch it on in the Dagster UI, under "
            "Automation.",
        }[found.schedule]
    )
