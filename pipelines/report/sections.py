"""What the report says and shows, in the order of the page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from pipelines.report import charts
from pipelines.report.activity import (
    RECENT_DAYS,
    WEEKS,
    Activity,
    EnterpriseDay,
    EnterprisePeriod,
    RecentOrganization,
    Window,
    window_over,
)

DAYS_ONE_BY_ONE = 91  # a longer trend shows only the means


@dataclass(frozen=True)
class Chart:
    """One chart; `id` is that of its element on the page."""

    id: str
    title: str
    spec: charts.Spec
    is_small: bool = False


@dataclass(frozen=True)
class Section:
    """A heading, what the section says in words, its charts, and their numbers as a table."""

    heading: str
    words: str
    charts: Sequence[Chart]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def distinct_names(organizations: Sequence[RecentOrganization]) -> list[str]:
    """A distinct name for each: its own, with its id if another has the same name, or the id alone if it has none."""
    often = Counter(org.org_name for org in organizations)
    return [
        org.org_name if org.org_name and often[org.org_name] == 1 else f"{org.org_name or ''} {org.org_id}".strip()
        for org in organizations
    ]


UNKNOWN = "\N{EN DASH}"


def _format(number: float | None, form: str = ",.0f") -> str:
    return UNKNOWN if number is None else format(number, form)


def _sum(window: Window) -> str:
    """The sum over the loaded days; unknown if none is loaded."""
    return _format(window.sessions_count if window.days_loaded else None)


def _loaded(window: Window) -> str:
    return f"{window.days_loaded:,} of {window.days:,}"


def _change(now: float | None, before: float | None) -> str:
    if now is None or before is None:
        return UNKNOWN
    return charts.format_change(now / before - 1) if before else ("none before" if now else "±0%")


def header(shown: Activity) -> str:
    """Which days the page covers, and how many of them are loaded. It ends with a colon if a command should follow."""
    last = shown.last_loaded
    if last is None:
        return "No day is loaded yet. To load all of history:"
    until = shown.days_up_to_last_loaded(len(shown.days))
    window = window_over(len(until), until)
    later = len(shown.days) - len(until)
    is_whole = window.is_complete and not shown.partial_days
    words = "every day is loaded" if is_whole else f"{_loaded(window)} days are loaded"
    if shown.partial_days:
        words += f", {shown.partial_days:,} of them without counts of some organizations"
    words = f"{until[0].day} to {last.day}: {words}."
    if later:
        words += f" The {'day after that is' if later == 1 else f'{later:,} days after that are'} not loaded."
    return words if is_whole and not later else f"{words} To load the rest:"


def tiles(shown: Activity) -> list[tuple[str, str, str]]:
    """For each tile: what it shows, its number, and a remark on that."""
    last = shown.last_loaded
    return [
        (
            f"Sessions on {last.day:%d %b %Y}" if last else "Sessions",
            _format(last.sessions_count if last else None),
            "settled" if last and last.is_settled else "may still change",
        ),
        _sum_tile(shown, 7),
        _sum_tile(shown, RECENT_DAYS),
        (
            f"Active organizations, {RECENT_DAYS} days",
            ("at least " if shown.possibly_active else "") + _format(shown.active_organizations),
            f"of {shown.known_organizations:,} known"
            + (f"; {shown.possibly_active:,} with missing counts" if shown.possibly_active else ""),
        ),
    ]


def _sum_tile(shown: Activity, days: int) -> tuple[str, str, str]:
    now, before = shown.window(days), shown.window(days, before=days)
    if not now.is_complete:
        remark = f"{_loaded(now)} days loaded"
    elif before.is_complete:
        remark = f"{_change(now.complete_sum, before.complete_sum)} vs previous {days} days"
    else:
        remark = f"{UNKNOWN} vs previous {days} days: {_loaded(before)} days loaded"
    return f"Last {days} days", _sum(now), remark


def sections(shown: Activity) -> list[Section]:
    """The sections of the page, in order. At least one day must be loaded."""
    return [
        _trend_section(shown),
        _calendar_section(shown),
        _organizations_section(shown),
        _periods_section("Weeks", shown.weeks),
        _periods_section("Months", shown.months),
    ]


def _calendar_section(shown: Activity) -> Section:
    counts = [day.sessions_count for day in shown.days if day.sessions_count is not None]
    years = sorted({day.day.year for day in shown.days}, reverse=True)

    def heat_map(year: int) -> charts.Spec:
        days = [day for day in shown.days if day.day.year == year]
        return charts.heat_map(year, days, max(counts), f"Sessions on each day of {year}", with_legend=year == years[0])

    return Section(
        "Calendar",
        "Each square is a day: the stronger its colour, the more sessions. A dashed square is a day that isn't loaded.",
        [Chart(f"year-{y}", str(y), heat_map(y)) for y in years],
        ["month", "sessions", "days loaded"],
        [[f"{month:%B %Y}", _sum(window), _loaded(window)] for month, window in _months(shown.days)],
    )


def _periods_section(heading: str, found: Sequence[EnterprisePeriod]) -> Section:
    noun = heading.lower().removesuffix("s")
    short, long = {"week": ("%d %b %y", "week of %d %B %Y"), "month": ("%b %y", "%B %Y")}[noun]
    complete = [period for period in found if period.window.is_complete]
    words = f"No complete {noun} is loaded yet."
    if complete:
        last = complete[-1]
        words = f"The last complete {noun} ({last.first_day:{long}}) has {last.window.sessions_count:,} sessions"
        change = _change(last.window.complete_sum, last.before)
        words += "." if last.before is None else f", {change} vs the {noun} before."
    return Section(
        heading,
        f"{words} Pale bars are incomplete {noun}s; a gap is a {noun} without a loaded day.",
        [Chart(heading.lower(), "", charts.periods([_bar(p, short) for p in found], f"Sessions by {noun}. {words}"))],
        [noun, "sessions", "change", "days loaded"],
        [
            [
                f"{period.first_day:{long}}",
                _sum(period.window),
                _change(period.window.complete_sum, period.before),
                _loaded(period.window),
            ]
            for period in reversed(found)
        ],
    )


def _bar(period: EnterprisePeriod, form: str) -> charts.Bar:
    window = period.window
    return charts.Bar(
        f"{period.first_day:{form}}",
        window.sessions_count if window.days_loaded else None,
        window.is_complete,
        f"{_loaded(window)} days loaded",
        _change(window.complete_sum, period.before),
    )


def trend(days: Sequence[EnterpriseDay], *, with_days: bool) -> charts.Spec:
    return charts.trend(days, f"Sessions per day from {days[0].day} to {days[-1].day}", with_days=with_days)


def _trend_section(shown: Activity) -> Section:
    recent = shown.days_up_to_last_loaded(DAYS_ONE_BY_ONE)
    known = [(day.sessions_count, day.day) for day in recent if day.sessions_count is not None]
    words = "None of these days is loaded."
    if known:
        most, on = max(known, key=lambda pair: pair[0])
        words = (
            f"The busiest day from {recent[0].day} to {recent[-1].day} was {on:%A %d %B %Y}, with {most:,} sessions."
        )
        if len(known) < len(recent):
            words += f" {len(known):,} of these {len(recent):,} days are loaded; the others are gaps."
    drawn = [Chart("trend", f"{len(recent)} days", trend(recent, with_days=True))]
    if len(shown.days) > len(recent) and any(day.mean_of_7_days is not None for day in shown.days):
        drawn.append(Chart("history", "All of history", trend(shown.days, with_days=False)))
    return Section(
        "Trend",
        words,
        drawn,
        ["day", "sessions", "7-day mean", "28-day mean"],
        [
            [
                f"{day.day}",
                "not loaded" if day.sessions_count is None else _format(day.sessions_count),
                _format(day.mean_of_7_days, ",.1f"),
                _format(day.mean_of_28_days, ",.1f"),
            ]
            for day in reversed(recent)
        ],
    )


def _organizations_section(shown: Activity) -> Section:
    orgs = shown.organizations
    names = distinct_names(orgs)
    window = shown.window(RECENT_DAYS)
    span = (
        f"in the last {RECENT_DAYS} days"
        if window.is_complete
        else f"on the {window.days_loaded} of the last {RECENT_DAYS} days that are loaded"
    )
    words = f"None of the counted organizations had a session {span}."
    if orgs:
        share = sum(org.recent.sessions_count for org in orgs)
        others = shown.active_organizations - len(orgs)
        words = f"{names[0]} had the most sessions {span}: {orgs[0].recent.sessions_count:,}."
        if others:
            at_least = "at least " if shown.possibly_active else ""
            words += f" These {len(orgs)} had {share:,} in total; {at_least}{others:,} more organizations were active."
    incomplete = shown.incomplete_organizations
    if incomplete:
        plural = "s" if incomplete > 1 else ""
        words += f" Counts of {incomplete:,} organization{plural} are missing on some of these days."
    small = [(name, org) for name, org in zip(names, orgs, strict=True) if org.weeks]
    drawn = [Chart("organizations", "", charts.top_organizations(list(zip(names, orgs, strict=True)), words))]
    drawn += [
        Chart(
            f"organization-{number}",
            name,
            charts.small_multiple(org, f"Sessions of {name} in each of the last {WEEKS} weeks"),
            is_small=True,
        )
        for number, (name, org) in enumerate(small, 1)
    ]
    tick = f"The tick marks the {RECENT_DAYS} days before, if all of them are loaded. "
    more = tick if any(org.before.is_complete for org in orgs) else ""
    more += (
        f"The small charts show the complete weeks among the last {WEEKS}, each on its own scale; "
        "a gap is an incomplete week."
    )
    return Section(
        "Organizations",
        f"{words} {more}" if orgs else words,
        drawn if orgs else [],
        [
            "organization",
            f"last {RECENT_DAYS} days",
            "days loaded",
            f"{RECENT_DAYS} days before",
            "days loaded",
            "change",
        ],
        [
            [
                name,
                _sum(org.recent),
                _loaded(org.recent),
                _format(org.before.complete_sum),
                _loaded(org.before),
                _change(org.recent.complete_sum, org.before.complete_sum),
            ]
            for name, org in zip(names, orgs, strict=True)
        ],
    )


def _months(days: Sequence[EnterpriseDay]) -> list[tuple[date, Window]]:
    """Each month of history, latest first. A month's days outside history are not part of its window."""
    found: dict[date, list[EnterpriseDay]] = {}
    for day in days:
        found.setdefault(day.day.replace(day=1), []).append(day)
    return [(month, window_over(len(of_month), of_month)) for month, of_month in sorted(found.items(), reverse=True)]
