"""The report's charts as Vega-Lite. The page sets the colours, since it knows light from dark mode.

A chart is as wide as its container. Its `description` says in words what it shows, for screen readers; its marks are
hidden from them, because a table below it has the numbers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from pipelines.report.activity import EnterpriseDay, RecentOrganization

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY, MEAN_OF_7, MEAN_OF_28 = "day", "7-day mean", "28-day mean"
# The page's colour0, colour1 and colour2 belong to these, in this order.
SERIES = [DAY, MEAN_OF_7, MEAN_OF_28]

# The page's CSS colours that the charts use.
COLOURS = ("colour0", "colour1", "colour2", "none", "full", "ink", "outline")

Spec = dict[str, Any]


def _spec(drawn: Spec, rows: Sequence[dict[str, Any]], description: str, height: int) -> Spec:
    return drawn | {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(rows)},
        "params": [{"name": name} for name in COLOURS],
    }


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


def _text(field: str, **properties: Any) -> Spec:
    return {"field": field, "type": "nominal"} | properties


def _number(field: str, **properties: Any) -> Spec:
    return {"field": field, "type": "quantitative"} | properties


def _date(title: str, form: str, field: str = "day") -> Spec:
    """A day in a tooltip, whatever the reader's time zone."""
    return {"field": field, "type": "temporal", "title": title, "timeUnit": "utcyearmonthdate", "format": form}


def _time(field: str, form: str) -> Spec:
    """An axis of days as they are in the data, whatever the reader's time zone."""
    axis: Spec = {"labelOverlap": "greedy", "labelSeparation": 8, "labelFlush": 20, "grid": False, "format": form}
    if "%d" not in form:
        axis["tickCount"] = {"interval": "month", "step": 1}  # otherwise a month's name could appear twice
    return {"field": field, "type": "temporal", "title": None, "scale": {"type": "utc"}, "axis": axis}


def _count(title: str | None = "sessions", ticks: int = 5) -> Spec:
    return _number("sessions", title=title, axis={"tickMinStep": 1, "tickCount": ticks})


def trend(days: Sequence[EnterpriseDay], description: str, *, with_days: bool) -> Spec:
    """Sessions per day and their means; `with_days=False` draws only the means."""
    rows: list[dict[str, Any]] = []
    for day in days:
        shown = [(MEAN_OF_7, day.mean_of_7_days), (MEAN_OF_28, day.mean_of_28_days)]
        if with_days:
            shown.insert(0, (DAY, day.sessions_count))
        rows += [{"day": f"{day.day}", "what": what, "sessions": number} for what, number in shown]
    known = {row["what"] for row in rows if row["sessions"] is not None}
    series = [name for name in SERIES if name in known]
    encoding = {
        "x": _time("day", "%d %b" if with_days else "%b %Y"),
        "y": _count("sessions a day"),
        "color": _text(
            "what",
            title=None,
            scale={"domain": series, "range": [{"expr": f"colour{SERIES.index(name)}"} for name in series]},
            legend={"orient": "top", "symbolType": "circle", "columns": 3},
        ),
        "tooltip": [_date("day", "%a %d %b %Y"), _text("what", title=" "), _number("sessions", format=",.1~f")],
    }
    lines = {
        "transform": [{"filter": f"datum.what !== '{DAY}'"}],
        "mark": {
            "type": "line",
            "aria": False,
            "strokeWidth": 2,
            "strokeCap": "round",
            "invalid": "break-paths-show-domains",
        },
    }
    bars = {
        "transform": [{"filter": f"datum.what === '{DAY}'"}],
        "mark": {"type": "bar", "opacity": 0.45, "binSpacing": 0, "aria": False},
    }
    drawn = {"layer": [bars, lines]} if len(known) > 1 and DAY in known else bars if DAY in known else lines
    return _spec(drawn | {"encoding": encoding}, rows, description, 240 if DAY in known else 220)


def heat_map(year: int, days: Sequence[EnterpriseDay], most: int, description: str, *, with_legend: bool) -> Spec:
    """A year's days by week and weekday. A day that isn't loaded is an outline."""
    first_weekday = date(year, 1, 1).weekday()

    def week(day: date) -> int:
        return (day.timetuple().tm_yday - 1 + first_weekday) // 7

    rows = [
        {
            "day": f"{day.day}",
            "week": week(day.day),
            "weekday": day.day.weekday(),
            "sessions": day.sessions_count,
            "loaded": "not loaded" if day.sessions_count is None else f"{day.sessions_count:,} sessions",
        }
        for day in days
    ]
    begins = [week(date(year, month, 1)) for month in range(1, 13)]
    encoding = {
        "x": {
            "field": "week",
            "type": "ordinal",
            "title": None,
            "scale": {"domain": list(range(54))},
            "axis": {
                "values": begins,
                "labelExpr": f"{list(MONTHS)}[indexof({begins}, datum.value)]",
                "labelOverlap": True,
                "ticks": False,
                "domain": False,
                "labelAlign": "left",
                "labelAngle": 0,
            },
        },
        "y": {
            "field": "weekday",
            "type": "ordinal",
            "title": None,
            "scale": {"domain": list(range(7))},
            "axis": {
                "labelExpr": f"{list(WEEKDAYS)}[datum.value]",
                "values": [0, 2, 4, 6],
                "ticks": False,
                "domain": False,
            },
        },
        "tooltip": [_date("day", "%a %d %b %Y"), _text("loaded", title=" ")],
    }
    legend = {"orient": "top", "gradientLength": 140, "direction": "horizontal", "tickMinStep": 1, "tickCount": 3}
    colour = _number(
        "sessions",
        title="sessions a day",
        scale={"domain": [0, max(most, 1)], "range": [{"expr": "none"}, {"expr": "full"}]},
        legend=legend if with_legend else None,
    )
    loaded = {
        "transform": [{"filter": "isValid(datum.sessions)"}],
        "mark": {"type": "rect", "aria": False, "cornerRadius": 2},
        "encoding": {"color": colour},
    }
    lacking = {
        "transform": [{"filter": "!isValid(datum.sessions)"}],
        "mark": {
            "type": "rect",
            "aria": False,
            "fillOpacity": 0,
            "stroke": {"expr": "outline"},
            "strokeWidth": 1,
            "strokeDash": [2, 2],
        },
    }
    return _spec({"layer": [loaded, lacking], "encoding": encoding}, rows, description, 112)


def periods(found: Sequence[Bar], description: str) -> Spec:
    """Sums of weeks or months in order: incomplete ones are pale, and there is a gap where nothing is loaded."""
    axis = {"labelOverlap": "greedy", "labelSeparation": 8, "labelAngle": 0}
    bars = {
        "mark": {"type": "bar", "aria": False, "color": {"expr": "colour1"}},
        "encoding": {
            "x": {"field": "period", "type": "ordinal", "title": None, "sort": None, "axis": axis},
            "y": _count(),
            "opacity": {"condition": {"test": "datum.is_whole", "value": 0.9}, "value": 0.4},
            "tooltip": [
                {"field": "period", "type": "ordinal", "title": " "},
                _number("sessions", format=","),
                _text("change", title="change"),
                _text("days", title=" "),
            ],
        },
    }
    return _spec(bars, [asdict(bar) for bar in found], description, 180)


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
    encoding = {
        "y": _text(
            "organization",
            title=None,
            scale={"domain": [name for name, _ in named]},
            axis={"labelLimit": 150, "ticks": False, "domain": False},
        ),
        "tooltip": [
            _text("organization", title=" "),
            _number("sessions", format=","),
            _text("days", title="days loaded"),
            _text("earlier", title="before"),
        ],
    }
    bars = {
        "mark": {"type": "bar", "aria": False, "color": {"expr": "colour1"}, "opacity": 0.85},
        "encoding": {"x": _count()},
    }
    ticks = {
        "mark": {"type": "tick", "aria": False, "thickness": 3, "color": {"expr": "ink"}},
        "encoding": {"x": _number("before")},
    }
    # From unknown values alone Vega would make an infinite axis.
    layers = [bars, ticks] if any(org.before.is_complete for _, org in named) else [bars]
    return _spec({"layer": layers, "encoding": encoding}, rows, description, 20 * len(rows))


def small_multiple(org: RecentOrganization, description: str) -> Spec:
    """An organization's complete weeks, with gaps for the others."""
    line = {
        "mark": {
            "type": "area",
            "aria": False,
            "line": {"strokeWidth": 2, "strokeCap": "round"},
            "opacity": 0.35,
            "color": {"expr": "colour1"},
            "invalid": "break-paths-show-domains",
        },
        "encoding": {
            "x": _time("week", "%b"),
            "y": _count(None, ticks=2),
            "tooltip": [_date("week of", "%d %b %Y", "week"), _number("sessions", format=",")],
        },
    }
    return _spec(line, [{"week": f"{week}", "sessions": count} for week, count in org.weeks], description, 70)
