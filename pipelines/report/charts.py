"""The report's charts as Vega-Lite, made with Altair. The page sets the colours, since it knows light from dark mode.

A chart is as wide as its container. Its `description` says in words what it shows, for screen readers; its marks are
hidden from them, because a table below it has the numbers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from pipelines.home import with_a_home_directory
from pipelines.report.activity import EnterpriseDay, RecentOrganization

with with_a_home_directory():  # Altair looks for it when it is imported
    import altair as alt

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY, MEAN_OF_7, MEAN_OF_28 = "day", "7-day mean", "28-day mean"
# The page's colour0, colour1 and colour2 belong to these, in this order.
SERIES = [DAY, MEAN_OF_7, MEAN_OF_28]

# Used for the picture in Dagster; the page replaces them with its own.
COLOURS = {
    "colour0": "#9ca3af",
    "colour1": "#2563eb",
    "colour2": "#c2410c",
    "none": "#e8eefc",
    "full": "#1d4ed8",
    "ink": "#111827",
    "outline": "#9ca3af",
}

ROWS = alt.NamedData(name="rows")

Spec = dict[str, Any]


def _spec(
    chart: alt.Chart | alt.LayerChart | alt.FacetChart, rows: Sequence[dict[str, Any]], description: str, height: int
) -> Spec:
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    laid_out = chart.properties(description=description, width="container", height=height, autosize=fit)
    spec: Spec = laid_out.to_dict(validate=False)  # the tests draw them all
    # The rows are added here because Altair would inspect every value in them.
    return spec | {"datasets": {ROWS.name: list(rows)}, "params": [{"name": n, "value": c} for n, c in COLOURS.items()]}


@dataclass(frozen=True)
class Bar:
    """A period's sum, None if no day of it is loaded. `days` and `change` are texts for its tooltip."""

    period: str
    sessions: int | None
    is_whole: bool
    days: str
    change: str


def format_change(change: float) -> str:
    """0.1 as +10%."""
    return f"{change:+.0%}"


def _day(day: date) -> str:
    return day.isoformat()


def _time(field: str, form: str) -> alt.X:
    """An axis of days as they are in the data, whatever the reader's time zone."""
    axis = alt.Axis(labelOverlap="greedy", labelSeparation=8, labelFlush=20, grid=False, format=form)
    if "%d" not in form:
        axis.tickCount = {"interval": "month", "step": 1}  # otherwise a month's name could appear twice
    return alt.X(f"{field}:T", title=None, scale=alt.Scale(type="utc"), axis=axis)


def _count(title: str = "sessions") -> alt.Y:
    return alt.Y("sessions:Q", title=title, axis=alt.Axis(tickMinStep=1, tickCount=5))


def trend(days: Sequence[EnterpriseDay], description: str, *, with_days: bool) -> Spec:
    """Sessions per day and their means; `with_days=False` draws only the means."""
    rows: list[dict[str, Any]] = []
    for day in days:
        shown = [(MEAN_OF_7, day.mean_of_7_days), (MEAN_OF_28, day.mean_of_28_days)]
        if with_days:
            shown.insert(0, (DAY, day.sessions_count))
        rows += [{"day": _day(day.day), "what": what, "sessions": number} for what, number in shown]
    known = {row["what"] for row in rows if row["sessions"] is not None}
    series = [name for name in SERIES if name in known]
    colour = alt.Color(
        "what:N",
        title=None,
        scale=alt.Scale(domain=series, range=[{"expr": f"colour{SERIES.index(name)}"} for name in series]),
        legend=alt.Legend(orient="top", symbolType="circle", columns=3),
    )
    tooltip = [
        alt.Tooltip("day:T", title="day", timeUnit="utcyearmonthdate", format="%a %d %b %Y"),
        alt.Tooltip("what:N", title=" "),
        alt.Tooltip("sessions:Q", format=",.1~f"),
    ]
    base = alt.Chart(ROWS).encode(
        x=_time("day", "%d %b" if with_days else "%b %Y"), y=_count("sessions a day"), color=colour, tooltip=tooltip
    )
    lines = base.transform_filter(f"datum.what !== '{DAY}'").mark_line(
        aria=False, strokeWidth=2, strokeCap="round", invalid="break-paths-show-domains"
    )
    if DAY not in known:
        return _spec(lines.properties(), rows, description, 220)
    bars = base.transform_filter(f"datum.what === '{DAY}'").mark_bar(opacity=0.45, binSpacing=0, aria=False)
    return _spec(alt.layer(bars, lines) if len(known) > 1 else bars, rows, description, 240)


def heat_map(year: int, days: Sequence[EnterpriseDay], most: int, description: str, *, with_legend: bool) -> Spec:
    """A year's days by week and weekday. A day that isn't loaded is an outline."""
    first_weekday = date(year, 1, 1).weekday()

    def week(day: date) -> int:
        return (day.timetuple().tm_yday - 1 + first_weekday) // 7

    rows = [
        {
            "day": _day(day.day),
            "week": week(day.day),
            "weekday": day.day.weekday(),
            "sessions": day.sessions_count,
            "loaded": "not loaded" if day.sessions_count is None else f"{day.sessions_count:,} sessions",
        }
        for day in days
    ]
    legend = alt.Legend(orient="top", gradientLength=140, direction="horizontal", tickMinStep=1, tickCount=3)
    begins = [week(date(year, month, 1)) for month in range(1, 13)]
    base = alt.Chart(ROWS).encode(
        x=alt.X(
            "week:O",
            title=None,
            scale=alt.Scale(domain=list(range(54))),
            axis=alt.Axis(
                values=begins,
                labelExpr=f"{list(MONTHS)}[indexof({begins}, datum.value)]",
                labelOverlap=True,
                ticks=False,
                domain=False,
                labelAlign="left",
                labelAngle=0,
            ),
        ),
        y=alt.Y(
            "weekday:O",
            title=None,
            scale=alt.Scale(domain=list(range(7))),
            axis=alt.Axis(labelExpr=f"{list(WEEKDAYS)}[datum.value]", values=[0, 2, 4, 6], ticks=False, domain=False),
        ),
        tooltip=[
            alt.Tooltip("day:T", title="day", timeUnit="utcyearmonthdate", format="%a %d %b %Y"),
            alt.Tooltip("loaded:N", title=" "),
        ],
    )
    loaded = (
        base.transform_filter("isValid(datum.sessions)")
        .mark_rect(aria=False, cornerRadius=2)
        .encode(
            color=alt.Color(
                "sessions:Q",
                title="sessions a day",
                scale=alt.Scale(domain=[0, max(most, 1)], range=[{"expr": "none"}, {"expr": "full"}]),
                legend=legend if with_legend else None,
            )
        )
    )
    lacking = base.transform_filter("!isValid(datum.sessions)").mark_rect(
        aria=False, fillOpacity=0, stroke={"expr": "outline"}, strokeWidth=1, strokeDash=[2, 2]
    )
    return _spec(alt.layer(loaded, lacking), rows, description, 112)


def periods(found: Sequence[Bar], description: str) -> Spec:
    """Sums of weeks or months in order: incomplete ones are pale, and there is a gap where nothing is loaded."""
    rows = [asdict(bar) for bar in found]
    bars = (
        alt.Chart(ROWS)
        .mark_bar(aria=False, color={"expr": "colour1"})
        .encode(
            x=alt.X(
                "period:O", title=None, sort=None, axis=alt.Axis(labelOverlap="greedy", labelSeparation=8, labelAngle=0)
            ),
            y=_count(),
            opacity=alt.condition("datum.is_whole", alt.value(0.9), alt.value(0.4)),
            tooltip=[
                alt.Tooltip("period:O", title=" "),
                alt.Tooltip("sessions:Q", format=","),
                alt.Tooltip("change:N", title="change"),
                alt.Tooltip("days:N", title=" "),
            ],
        )
    )
    return _spec(bars, rows, description, 180)


def top_organizations(named: Sequence[tuple[str, RecentOrganization]], description: str) -> Spec:
    """Recent sessions, most first, with a tick for the days before them if all of those are loaded."""
    rows = [
        {
            "organization": name,
            "sessions": org.recent.sessions_count,
            "days": f"{org.recent.days_loaded} of {org.recent.days}",
            "before": org.before.complete_sum,
            "earlier": "unknown" if org.before.complete_sum is None else f"{org.before.complete_sum:,}",
        }
        for name, org in named
    ]
    base = alt.Chart(ROWS).encode(
        y=alt.Y(
            "organization:N",
            title=None,
            scale=alt.Scale(domain=[name for name, _ in named]),
            axis=alt.Axis(labelLimit=150, ticks=False, domain=False),
        ),
        tooltip=[
            alt.Tooltip("organization:N", title=" "),
            alt.Tooltip("sessions:Q", format=","),
            alt.Tooltip("days:N", title="days loaded"),
            alt.Tooltip("earlier:N", title="before"),
        ],
    )
    bars = base.mark_bar(aria=False, color={"expr": "colour1"}, opacity=0.85).encode(
        x=alt.X("sessions:Q", title="sessions", axis=alt.Axis(tickMinStep=1, tickCount=5))
    )
    ticks = base.mark_tick(aria=False, thickness=3, color={"expr": "ink"}).encode(x="before:Q")
    # From unknown values alone Vega would make an infinite axis.
    layers = [bars, ticks] if any(org.before.is_complete for _, org in named) else [bars]
    return _spec(alt.layer(*layers), rows, description, 20 * len(rows))


def small_multiple(org: RecentOrganization, description: str) -> Spec:
    """An organization's complete weeks, with gaps for the others."""
    rows = [{"week": _day(week), "sessions": count} for week, count in org.weeks]
    line = (
        alt.Chart(ROWS)
        .mark_area(
            aria=False,
            line={"strokeWidth": 2, "strokeCap": "round"},
            opacity=0.35,
            color={"expr": "colour1"},
            invalid="break-paths-show-domains",
        )
        .encode(
            x=_time("week", "%b"),
            y=alt.Y("sessions:Q", title=None, axis=alt.Axis(tickMinStep=1, tickCount=2)),
            tooltip=[
                alt.Tooltip("week:T", title="week of", timeUnit="utcyearmonthdate", format="%d %b %Y"),
                alt.Tooltip("sessions:Q", format=","),
            ],
        )
    )
    return _spec(line, rows, description, 70)
