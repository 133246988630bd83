"""What time it is at the API, by the `Date` of its responses, compared with the clock of this machine."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from resources.http_dates import parse_http_date

# Before any Devin API existed: the Date of a device whose clock was never set.
_FIRST_CREDIBLE = datetime(2024, 1, 1, tzinfo=UTC)
_RESOLUTION = timedelta(seconds=1)
_NONE = timedelta(0)


@dataclass
class SourceClock:
    """How far this machine's clock is certainly ahead of the API's, or behind it.

    Only what all responses agree on is certain, since a cache, or one server among several, may send a wrong Date. A
    response without a usable one says nothing, and without any the clocks are taken to agree.
    """

    _ahead: timedelta | None = None
    _behind: timedelta | None = None

    def record(self, headers: Mapping[str, str], sent_at: datetime, received_at: datetime) -> None:
        """Take in one response. The two moments are by this machine's clock; the API dated it in between."""
        date = parse_http_date(headers.get("date", ""))
        if date is None or date < _FIRST_CREDIBLE:
            return
        age = headers.get("age", "")
        date += timedelta(seconds=int(age) if re.fullmatch("[0-9]{1,9}", age) else 0)
        ahead, behind = sent_at - date - _RESOLUTION, date - received_at
        self._ahead = ahead if self._ahead is None else min(self._ahead, ahead)
        self._behind = behind if self._behind is None else min(self._behind, behind)

    @property
    def ahead(self) -> timedelta:
        """By how much this machine's clock is ahead, at least; 0 if it may be right."""
        return max(_NONE, self._ahead or _NONE)

    @property
    def behind(self) -> timedelta:
        """By how much this machine's clock is behind, at least; 0 if it may be right."""
        return max(_NONE, self._behind or _NONE)

    def now(self) -> datetime:
        """The time in UTC: by this machine's clock, or by the API's if that one has not come so far."""
        return datetime.now(UTC) - self.ahead
