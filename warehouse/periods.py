"""Which days to rebuild when one has changed: its week, its month, or the day itself and some after it."""

import calendar
from collections.abc import Callable
from datetime import date, timedelta


def week_of(day: date) -> tuple[date, date]:
    """The Monday and the Sunday of its ISO week."""
    monday = day - timedelta(days=day.weekday())
    return monday, monday + timedelta(days=6)


def month_of(day: date) -> tuple[date, date]:
    """The first and the last day of its month."""
    return day.replace(day=1), day.replace(day=calendar.monthrange(day.year, day.month)[1])


def up_to_days_later(days: int) -> Callable[[date], tuple[date, date]]:
    """A function that returns, for a day, the day itself and the one that is `days` later."""
    return lambda day: (day, day + timedelta(days=days))
