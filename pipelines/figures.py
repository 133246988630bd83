"""What the report says and shows, in the order of its page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from pipelines import charts
from warehouse.activity import (
    RECENT_DAYS,
    RESTATED_DAYS,
    WEEKS,
    Activity,
    DayOfEnterprise,
    OrganizationLately,
    PeriodOfEnterprise,
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
class Figure:
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


def _spelled(number: float | None, form: str = ",.0f") -> str:
    return "unknown" if number is None else format(number, form)


def _change(now: float | None, before: float | None) -> str:
    if now is None or before is None:
        return charts.spelled_change(None)
    return charts.spelled_change(now / before - 1) if before else ("none before" if now else "±0%")


def tiles(shown: Activity) -> list[tuple[str, str, str]]:
    """What, how much, and a word on it."""
    week, week_before = shown.sum_of(7), shown.sum_of(7, before=7)
    lately, lately_before = shown.sum_of(RECENT_DAYS), shown.sum_of(RECENT_DAYS, before=RECENT_DAYS)
    last = shown.last_loaded
    return [
        (
            f"Sessions on {last.day:%d %b %Y}" if last else "Sessions",
            _spelled(last.sessions_count if last else None),
            "may still change" if last and not last.is_settled else "settled",
        ),
        ("Last 7 days", _spelled(week), f"{_change(week, week_before)} to the 7 before"),
        (
            f"Last {RECENT_DAYS} days",
            _spelled(lately),
            f"{_change(lately, lately_before)} to the {RECENT_DAYS} before",
        ),
        (
            f"Active organizations, {RECENT_DAYS} days",
            _spelled(shown.active_organizations),
            f"of {shown.organizations_listed:,} known",
        ),
    ]


def figures(shown: Activity) -> list[Figure]:
    """Each with a heading, what it says in words, its charts, and a table of its numbers."""
    shown_figures = [_trend_figure(shown), _calendar_figure(shown), _organizations_figure(shown)]
    return [*shown_figures, _periods_figure("Weeks", shown.weeks), _periods_figure("Months", shown.months)]


def _calendar_figure(shown: Activity) -> Figure:
    counts = [day.sessions_count for day in shown.days if day.sessions_count is not None]
    years = sorted({day.day.year for day in shown.days}, reverse=True)

    def heat_map(year: int) -> charts.Spec:
        days = [day for day in shown.days if day.day.year == year]
        told = f"Sessions on each day of {year}"
        return charts.heat_map(year, days, max(counts), told, with_legend=year == years[0])

    return Figure(
        "Calendar",
        "Each square is a day, stronger with more sessions; a dashed one is not loaded.",
        [Chart(f"year-{y}", str(y), heat_map(y)) for y in years],
        ["month", "sessions", "days loaded"],
        [
            [f"{month:%B %Y}", _spelled(sum(loaded)), f"{len(loaded)} of {of_month}"]
            for month, loaded, of_month in _months(shown.days)
        ],
    )


def _periods_figure(heading: str, found: Sequence[PeriodOfEnterprise]) -> Figure:
    noun = heading.lower().removesuffix("s")
    short, long = {"week": ("%d %b %y", "week of %d %B %Y"), "month": ("%b %y", "%B %Y")}[noun]
    whole = [period for period in found if period.is_complete]
    words = f"No whole {noun} is loaded yet."
    if whole:
        words = f"The last whole one, {whole[-1].first_day:{long}}, has {whole[-1].sessions_count:,} sessions"
        words += "." if whole[-1].change is None else f", {whole[-1].change:+.0%} to the one before."
    return Figure(
        heading,
        f"{words} Pale ones are not whole.",
        [Chart(heading.lower(), "", charts.periods(found, short, f"Sessions by {noun}. {words}"))],
        [noun, "sessions", "change", "days"],
        [
            [
                f"{period.first_day:{long}}",
                _spelled(period.sessions_count),
                charts.spelled_change(period.change),
                "all" if period.is_complete else "some are not loaded",
            ]
            for period in reversed(found)
        ],
    )


def trend(days: Sequence[DayOfEnterprise], *, with_days: bool) -> charts.Spec:
    return charts.trend(days, f"Sessions a day from {days[0].day} to {days[-1].day}", with_days=with_days)


def _trend_figure(shown: Activity) -> Figure:
    lately = shown.up_to_the_last_loaded(DAYS_ONE_BY_ONE)
    known = [(day.sessions_count, day.day) for day in lately if day.sessions_count is not None]
    words = "None of these days is loaded."
    if known:
        most, on = max(known, key=lambda pair: pair[0])
        words = f"Between {lately[0].day} and {lately[-1].day} the most on one day were {most:,}, on {on:%A %d %B %Y}."
    drawn = [Chart("trend", f"{len(lately)} days", trend(lately, with_days=True))]
    if len(shown.days) > len(lately) and any(day.mean_of_7_days is not None for day in shown.days):
        drawn.append(Chart("history", "All of history", trend(shown.days, with_days=False)))
    return Figure(
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


def _organizations_figure(shown: Activity) -> Figure:
    orgs = shown.organizations
    names = names_of(orgs)
    words = f"No organization had a session in the last {RECENT_DAYS} days."
    if orgs:
        share = sum(org.sessions_count for org in orgs)
        others = shown.active_organizations - len(orgs)
        words = f"{names[0]} had most sessions in the last {RECENT_DAYS} days: {orgs[0].sessions_count:,}."
        if others:
            words += f" These {len(orgs)} had {share:,} together; {others:,} more organizations were active."
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
    more = (
        f"The tick is the {RECENT_DAYS} days before. Small charts: the last {WEEKS} whole weeks, each on its own scale."
    )
    return Figure(
        "Organizations",
        f"{words} {more}" if orgs else words,
        drawn if orgs else [],
        ["organization", f"last {RECENT_DAYS} days", f"{RECENT_DAYS} before", "change"],
        [
            [name, _spelled(org.sessions_count), _spelled(org.before), _change(org.sessions_count, org.before)]
            for name, org in zip(names, orgs, strict=True)
        ],
    )


def _months(days: Sequence[DayOfEnterprise]) -> list[tuple[date, list[int], int]]:
    """Each month, latest first: the counts of its loaded days, and how many days of history it has."""
    found: dict[date, list[int | None]] = {}
    for day in days:
        found.setdefault(day.day.replace(day=1), []).append(day.sessions_count)
    return [
        (month, [count for count in counts if count is not None], len(counts))
        for month, counts in sorted(found.items(), reverse=True)
    ]


def trust(shown: Activity) -> list[tuple[bool, str, str]]:
    """Whether all is well, about what, and how it stands."""
    trust = shown.trust
    of = trust.days_by_verdict
    missing, contradicting = of.get("not loaded", 0), of.get("contradiction", 0)
    loaded = trust.days - missing
    proven = of.get("proven", 0)
    rows = [
        (
            missing == 0 and loaded > 0,
            "Coverage",
            f"{loaded:,} of {trust.days:,} days are loaded."
            + (" To load the rest: devin-sessions backfill --missing" if missing else ""),
        ),
        (
            contradicting == 0,
            "Reconciliation",
            f"On {proven:,} of {loaded:,} loaded days the organizations add up to the source's own total."
            + (f" On {contradicting:,} they are more: the source contradicts itself." if contradicting else ""),
        ),
        (
            trust.unattributed == 0,
            "Unattributed",
            f"{trust.unattributed:,} sessions in all belong to no organization that was counted."
            if trust.unattributed
            else "Every session belongs to an organization that was counted.",
        ),
        (
            True,
            "Restatements",
            f"{trust.restated:,} counts were changed in the last {RESTATED_DAYS} days, by {trust.restated_by:+,} "
            "sessions together; session_revisions has both values of each."
            if trust.restated
            else f"No stored count was changed in the last {RESTATED_DAYS} days.",
        ),
        (
            not trust.unavailable,
            "Unavailable organizations",
            "The source counts every organization."
            if not trust.unavailable
            else "The source refuses "
            + "; ".join(f"{name} since {since:%Y-%m-%d} ({why})" for _, name, since, why in trust.unavailable[:10])
            + (f" and {len(trust.unavailable) - 10} more." if len(trust.unavailable) > 10 else "."),
        ),
    ]
    last = trust.last_loaded_at
    rows.append((last is not None, "Last loaded", f"{last:%Y-%m-%d %H:%M} UTC." if last else "Never."))
    return rows
