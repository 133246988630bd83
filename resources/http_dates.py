"""Dates in HTTP headers."""

import email.utils
import functools
from datetime import UTC, datetime


@functools.lru_cache(maxsize=16)  # responses of one second have the same
def parse_http_date(value: str) -> datetime | None:
    """The moment that a header such as `Date` states, in UTC; None if it states none."""
    try:
        date = email.utils.parsedate_to_datetime(value)
        return date.replace(tzinfo=date.tzinfo or UTC).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
