"""What the report says and shows, in the order of its page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from pipelines.report import charts
from pipelines.report.activity import (
    RECENT_DAYS,
    WEEKS,
    Activity,
    DayOfEnterprise,
    OrganizationLately,
    PeriodOfEnterprise,
    Window,
    window_of,
)

DAYS_ONE_BY_ONE = 91  # a longer trend shows means alone


@dataclass(frozen=True)
class Chart:
    """One chart; `id` is its place on the page."""

    id: str
    title: str
    spec: charts.Spec
    is_small: bool = False


@dataclass(frozen=True)
class Section:
    """A heading, what it says in words, its charts, and its numbers as a table."""

    heading: str
    words: str
    charts: Sequence[Chart]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def names_of(organizations: Sequence[OrganizationLately]) -> list[str]:
    """A name for each that no other has: its own, and its id where that is shared or unknown."""
    often = Counter(org.org_name for org in organizations)
    return [
        org.org_name if org.org_name and often[org.org_name] == 1 else f"{org.org_name or ''} {org.org_id}".strip()
        for org in organizations
    ]


UNKNOWN = "\N{EN DASH}"


def _spelled(number: float | None, form: str = ",.0f") -> str:
    return UNKNOWN if number is None else format(number, form)


def _sum(window: Window) -> str:
    """What is known of it; unknown if nothing is."""
    return _spelled(window.sessions_count if window.days_loaded else None)


def _loaded(window: Window) -> str:
    return f"{window.days_loaded:,} of {window.days:,}"


def _change(now: float | None, before: float | None) -> str:
    if now is None or before is None:
        return UNKNOWN
    return charts.spelled_change(now / before - 1) if before else ("none before" if now else "±0%")


def header(shown: Activity) -> str:
    """Which days the page is about, and how many of them are loaded."""
    last = shown.last_loaded
    if last is None:
        return "No day is loaded yet. To load all of history:"
    until = shown.up_to_the_last_loaded(len(shown.days))
    window = window_of(len(until), until)
    later = len(shown.days) - len(until)
    is_whole = window.is_complete and not shown.partial_days
    words = "every day is loaded" if is_whole else f"{_loaded(window)} days are loaded"
    if shown.partial_days:
        words += f", {shown.partial_days:,} of them without some organizations"
    words = f"{until[0].day} to {last.day}: {words}."
    if later:
        words += f" The {'day' if later == 1 else f'{later:,} days'} of history after that {_are(later)} not loaded."
    return words if is_whole and not later else f"{words} To load the rest:"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def tiles(shown: Activity) -> list[tuple[str, str, str]]:
    """What, how much, and a word on it."""
    last = shown.last_loaded
    return [
        (
            f"Sessions on {last.day:%d %b %Y}" if last else "Sessions",
            _spelled(last.sessions_count if last else None),
            "settled" if last and last.is_settled else "may still change",
        ),
        _sum_tile(shown, 7),
        _sum_tile(shown, RECENT_DAYS),
        (
            f"Active organizations, {RECENT_DAYS} days",
            ("at least " if shown.perhaps_active else "") + _spelled(shown.active_organizations),
            f"of {shown.known_organizations:,} known"
            + (f"; {shown.perhaps_active:,} lack counts" if shown.perhaps_active else ""),
        ),
    ]


def _sum_tile(shown: Activity, days: int) -> tuple[str, str, str]:
    now, before = shown.window(days), shown.window(days, before=days)
    if not now.is_complete:
        word = f"{_loaded(now)} days loaded"
    elif before.is_complete:
        word = f"{_change(now.whole, before.whole)} to the {days} before"
    else:
        word = f"{UNKNOWN} to the {days} before: {_loaded(before)} days loaded"
    return f"Last {days} days", _sum(now), word


def sections(shown: Activity) -> list[Section]:
    """Each with a heading, what it says in words, its charts, and a table of its numbers."""
    shown_figures = [_trend_section(shown), _calendar_section(shown), _organizations_section(shown)]
    return [*shown_figures, _periods_section("Weeks", shown.weeks), _periods_section("Months", shown.months)]


def _calendar_section(shown: Activity) -> Section:
    counts = [day.sessions_count for day in shown.days if day.sessions_count is not None]
    years = sorted({day.day.year for day in shown.days}, reverse=True)

    def heat_map(year: int) -> charts.Spec:
        days = [day for day in shown.days if day.day.year == year]
        told = f"Sessions on each day of {year}"
        return charts.heat_map(year, days, max(counts), told, with_legend=year == years[0])

    return Section(
        "Calendar",
        "Each square is a day, stronger with more sessions; a dashed one is not loaded.",
        [Chart(f"year-{y}", str(y), heat_map(y)) for y in years],
        ["month", "sessions", "days loaded"],
        [[f"{month:%B %Y}", _sum(window), _loaded(window)] for month, window in _months(shown.days)],
    )


def _periods_section(heading: str, found: Sequence[PeriodOfEnterprise]) -> Section:
    noun = heading.lower().removesuffix("s")
    short, long = {"week": ("%d %b %y", "week of %d %B %Y"), "month": ("%b %y", "%B %Y")}[noun]
    whole = [period for period in found if period.window.is_complete]
    words = f"No whole {noun} is loaded yet."
    if whole:
        last = whole[-1]
        words = f"The last whole one, {last.first_day:{long}}, has {last.window.sessions_count:,} sessions"
        words += "." if last.before is None else f", {_change(last.window.whole, last.before)} to the one before."
    return Section(
        heading,
        f"{words} Pale ones are not whole; a gap is one of which no day is loaded.",
        [Chart(heading.lower(), "", charts.periods([_bar(p, short) for p in found], f"Sessions by {noun}. {words}"))],
        [noun, "sessions", "change", "days loaded"],
        [
            [
                f"{period.first_day:{long}}",
                _sum(period.window),
                _change(period.window.whole, period.before),
                _loaded(period.window),
            ]
            for period in reversed(found)
        ],
    )


def _bar(period: PeriodOfEnterprise, form: str) -> charts.Bar:
    window = period.window
    return charts.Bar(
        f"{period.first_day:{form}}",
        window.sessions_count if window.days_loaded else None,
        window.is_complete,
        f"{_loaded(window)} days loaded",
        _change(window.whole, period.before),
    )


def trend(days: Sequence[DayOfEnterprise], *, with_days: bool) -> charts.Spec:
    return charts.trend(days, f"Sessions a day from {days[0].day} to {days[-1].day}", with_days=with_days)


def _trend_section(shown: Activity) -> Section:
    lately = shown.up_to_the_last_loaded(DAYS_ONE_BY_ONE)
    known = [(day.sessions_count, day.day) for day in lately if day.sessions_count is not None]
    words = "None of these days is loaded."
    if known:
        most, on = max(known, key=lambda pair: pair[0])
        words = f"Between {lately[0].day} and {lately[-1].day} the most on one day were {most:,}, on {on:%A %d %B %Y}."
        if len(known) < len(lately):
            words += f" {len(known):,} of these {len(lately):,} days are loaded; the others are gaps."
    drawn = [Chart("trend", f"{len(lately)} days", trend(lately, with_days=True))]
    if len(shown.days) > len(lately) and any(day.mean_of_7_days is not None for day in shown.days):
        drawn.append(Chart("history", "All of history", trend(shown.days, with_days=False)))
    return Section(
        "Trend",
        words,
        drawn,
        ["day", "sessions", "7-day mean", "28-day mean"],
        [
            [
                f"{day.day}",
                "not loaded" if day.sessions_count is None else _spelled(day.sessions_count),
                _spelled(day.mean_of_7_days, ",.1f"),
                _spelled(day.mean_of_28_days, ",.1f"),
            ]
            for day in reversed(lately)
        ],
    )


def _organizations_section(shown: Activity) -> Section:
    orgs = shown.organizations
    names = names_of(orgs)
    window = shown.window(RECENT_DAYS)
    span = (
        f"in the last {RECENT_DAYS} days"
        if window.is_complete
        else f"on the {window.days_loaded} of the last {RECENT_DAYS} days that are loaded"
    )
    words = f"No organization that was counted had a session {span}."
    if orgs:
        share = sum(org.lately.sessions_count for org in orgs)
        others = shown.active_organizations - len(orgs)
        words = f"{names[0]} had most sessions {span}: {orgs[0].lately.sessions_count:,}."
        if others:
            at_least = "at least " if shown.perhaps_active else ""
            words += f" These {len(orgs)} had {share:,} together; {at_least}{others:,} more organizations were active."
    lacking = shown.incomplete_organizations
    if lacking:
        words += f" {lacking:,} organization{'s lack' if lacking > 1 else ' lacks'} counts on some of these days."
    small = [(name, org) for name, org in zip(names, orgs, strict=True) if org.weeks]
    drawn = [Chart("organizations", "", charts.top_organizations(list(zip(names, orgs, strict=True)), words))]
    drawn += [
        Chart(
            f"organization-{number}",
            name,
            charts.small_multiple(org, f"Sessions of {name} in each of the last weeks"),
            is_small=True,
        )
        for number, (name, org) in enumerate(small, 1)
    ]
    tick = f"The tick is the {RECENT_DAYS} days before, where all of them are loaded. "
    more = tick if any(org.before.is_complete for org in orgs) else ""
    more += (
        f"Small charts: whole weeks among the last {WEEKS}, each on its own scale; a gap is a week that is not whole."
    )
    return Section(
        "Organizations",
        f"{words} {more}" if orgs else words,
        drawn if orgs else [],
        ["organization", f"last {RECENT_DAYS} days", "days loaded", f"{RECENT_DAYS} before", "days loaded", "change"],
        [
            [
                name,
                _sum(org.lately),
                _loaded(org.lately),
                _spelled(org.before.whole),
                _loaded(org.before),
                _change(org.lately.whole, org.before.whole),
            ]
            for name, org in zip(names, orgs, strict=True)
        ],
    )


def _months(days: Sequence[DayOfEnterprise]) -> list[tuple[date, Window]]:
    """Each month, latest first, as far as history reaches."""
    found: dict[date, list[DayOfEnterprise]] = {}
    for day in days:
        found.setdefault(day.day.replace(day=1), []).append(day)
    return [(month, window_of(len(of_month), of_month)) for month, of_month in sorted(found.items(), reverse=True)]
