"""Which days the words on a command line mean: a day, a week, a month, a year, the last days, or a range."""

import re
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import NamedTuple

from pipelines.command.exit_codes import WrongUse

FORMS = (
    "Give a day such as 2025-01-31 or yesterday, a week (2025-W05), a month (2025-01), a year (2025), or -7d or -2w "
    "for the last closed days"
)
_RANGE = re.compile(r"…|\.\.+")
_LAST_DAYS = re.compile(r"-?([0-9]{1,6})([dw])")
_WEEK = re.compile(r"[0-9]{4}-?W[0-9]{2}")
_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")
_YEAR = re.compile(r"[0-9]{4}")


class Period(NamedTuple):
    """From `first` to `last`. A period that `may_be_cut` means those of its days that can be loaded."""

    first: date
    last: date
    may_be_cut: bool = False


def refuse_contradictions(words: Sequence[str], *, missing: bool, refresh: bool) -> None:
    """Raise WrongUse unless `backfill` is given either days or --missing, and --refresh only with days."""
    command, again = "devin-sessions backfill", " --refresh" if refresh else ""
    if missing and words:
        days = " ".join(words)
        raise WrongUse(
            f"--missing and {days} contradict each other: --missing loads every day that isn't loaded yet. "
            f"Run either {command} {days}{again} or {command} --missing."
        )
    if missing and refresh:
        raise WrongUse(
            "--missing and --refresh contradict each other: one leaves out the days that are already loaded, the other "
            f"reads them again. Run either {command} --missing or, to read days again, {command} FIRST LAST --refresh."
        )
    if refresh and not words:
        raise WrongUse(f"--refresh needs the days to read again, such as {command} -7d --refresh.")
    if not missing and not words:
        raise WrongUse(
            "Give the days, such as yesterday, -7d, 2025-01, or FIRST and LAST; or use --missing to load every day "
            "that isn't loaded yet."
        )


def refuse_other_words(words: Sequence[str]) -> None:
    """Raise WrongUse if a word means no day, whichever days are closed."""
    for word in words:
        for part in _RANGE.split(word):
            _period(part, [date.max - timedelta(days=1)])


def days_meant(words: Sequence[str], closed: Sequence[date], start: date) -> list[date]:
    """The days from the first of one or two words to the last, which are in `closed`, in order.

    `closed` are all closed days since `start`. A week, a month, a year and the last days stand for those of their days
    that are closed and not before `start`. Raises WrongUse if a word means no day, or if a day is none of `closed`.
    """
    if not closed:
        raise WrongUse("No day is closed yet.")
    words = [part for word in words for part in (_RANGE.split(word) if len(words) == 1 else [word])]
    if len(words) > 1 and _LAST_DAYS.fullmatch(words[-1]):
        raise WrongUse(f'"{words[-1]}" means the last days up to {closed[-1]}, so no range ends with it. {FORMS}.')
    periods = [_period(word, closed) for word in words]
    for earlier, later in pairwise(periods):
        if earlier.first > later.last:
            raise WrongUse(f"The range is reversed: {words[0]} is after {words[-1]}. Swap the two.")
    first, last = periods[0], periods[-1]
    if first.first < start and (not first.may_be_cut or last.last < start):
        raise WrongUse(f"{words[0]} is before DEVIN_START_DATE={start}. Start there, or set an earlier date.")
    if first.first > closed[-1] or (last.last > closed[-1] and not last.may_be_cut):
        raise WrongUse(f"{words[-1]} is not over yet. The last closed day is {closed[-1]}.")
    days = [day for day in closed if first.first <= day <= last.last]
    if not days:
        raise WrongUse(f"There is no {first.first} in the time zone DEVIN_TIMEZONE, which skips it. Give another day.")
    return days


def _period(word: str, closed: Sequence[date]) -> Period:
    """What one word means. Raises WrongUse if it means nothing."""
    try:
        if word.lower() in ("yesterday", "today"):
            day = closed[-1] if word.lower() == "yesterday" else closed[-1] + timedelta(days=1)
            return Period(day, day)
        if found := _LAST_DAYS.fullmatch(word):
            number = int(found[1]) * (7 if found[2] == "w" else 1)
            days = closed[-number:] if number else []
            return Period(days[0], days[-1], may_be_cut=True)
        if _WEEK.fullmatch(word):
            first = date.fromisoformat(word + ("-1" if "-" in word else "1"))
            return Period(first, first + timedelta(days=6), may_be_cut=True)
        if found := _MONTH.fullmatch(word):
            first = date(int(found[1]), int(found[2]), 1)
            return Period(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1), may_be_cut=True)
        if _YEAR.fullmatch(word):
            return Period(date(int(word), 1, 1), date(int(word), 12, 31), may_be_cut=True)
        day = date.fromisoformat(word)
        return Period(day, day)
    except (ValueError, IndexError, OverflowError):
        raise WrongUse(f'"{word}" is not a day. {FORMS}.') from None
