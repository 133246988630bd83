"""Days: where each begins and ends, and which are closed. The arithmetic is Dagster's own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache

import dagster as dg

from pipelines.settings import Settings


@dataclass(frozen=True)
class Day:
    """One day and its window [start, end) in UTC."""

    day: date
    start: datetime
    end: datetime

    @property
    def is_skipped(self) -> bool:
        """Whether its zone's calendar leaves it out, as that of Samoa did with 2011-12-30: its window is empty."""
        return self.start == self.end


def daily_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """One partition per day, from DEVIN_START_DATE to the last day whose window is over."""
    return dg.DailyPartitionsDefinition(
        start_date=settings.devin_start_date.isoformat(),
        timezone=settings.devin_timezone,
        hour_offset=settings.devin_day_start_hour,
    )


def as_days(partitions: dg.DailyPartitionsDefinition, keys: Iterable[str]) -> list[Day]:
    """The days of these partition keys, with their windows."""
    return [_as_day(partitions, key) for key in keys]


def day_before(partitions: dg.DailyPartitionsDefinition, day: Day) -> Day:
    """The day that ends where `day` starts, which may be before DEVIN_START_DATE."""
    before = _as_day(partitions, (day.day - timedelta(days=1)).isoformat())
    return day_before(partitions, before) if before.is_skipped else before


@cache
def _as_day(partitions: dg.DailyPartitionsDefinition, key: str) -> Day:
    day = date.fromisoformat(key)
    start, end = _window(partitions, day)
    # To a day that its zone skips, Dagster gives the window of the next one.
    start_of_next, _ = _window(partitions, day + timedelta(days=1))
    return Day(day, start, min(end, start_of_next))


@cache
def _window(partitions: dg.DailyPartitionsDefinition, day: date) -> tuple[datetime, datetime]:
    window = partitions.time_window_for_partition_key(day.isoformat())
    return window.start.astimezone(UTC), window.end.astimezone(UTC)


def closed_days(partitions: dg.DailyPartitionsDefinition, now: datetime | None = None) -> list[date]:
    """Every day from DEVIN_START_DATE to the last closed one, in order."""
    with dg.partition_loading_context(now):
        last = partitions.get_last_partition_window()
    return list(_days_until(partitions, last.end)) if last else []


@cache
def _days_until(partitions: dg.DailyPartitionsDefinition, end: datetime) -> tuple[date, ...]:
    return tuple(date.fromisoformat(key) for key in partitions.get_partition_keys(current_time=end))


def ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    """The fewest (first, last) pairs that cover exactly these days, in order."""
    found: list[tuple[date, date]] = []
    for day in sorted(days):
        if found and (day - found[-1][1]).days == 1:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def parts(days: Iterable[date], longest: int) -> list[tuple[date, date]]:
    """The fewest (first, last) pairs that cover these days, each of up to `longest` days, which may include others."""
    found: list[tuple[date, date]] = []
    for day in sorted(days):
        if found and (day - found[-1][0]).days < longest:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def format_days(days: Sequence[date]) -> str:
    """These days as ranges, such as `2025-01-03, 2025-01-05…2025-01-09 (6 days)`; at most six ranges are listed."""
    parts = [f"{a}" if a == b else f"{a}…{b}" for a, b in ranges(days)]
    shown = ", ".join(parts[:6]) + (f" and {len(parts) - 6} more ranges" if len(parts) > 6 else "")
    return f"{shown} ({len(days)} days)" if len(days) > 1 else shown
