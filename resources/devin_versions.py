"""What differs between v2 and v3 of the API: paths, parameters, fields and pagination.

Sending requests is up to `retries`, interpreting responses to `devin_answers`.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

Params = list[tuple[str, str | int | float | bool | None]]
VersionName = Literal["v2", "v3"]
WindowEnd = Literal["exclusive", "inclusive"]

PAGE_SIZE = 200
LONGEST_CURSOR = 4000


@dataclass(frozen=True)
class Listing:
    """A paginated list of the API: its path, and which fields of each item are read."""

    noun: str
    path: str
    id_field: str
    name_field: str | None
    created_field: str | None


@dataclass(frozen=True)
class V2:
    """Personal keys of Enterprise admins; ISO date-times; pagination by offset.

    The contract has two pairs of window parameters; counts are asked for by the pair that it describes.
    `window_end` is whether the API counts the end of a window, which no contract says.
    """

    name: ClassVar[VersionName] = "v2"
    sessions_path: ClassVar[str] = "/v2/enterprise/metrics/sessions"
    session_list_path: ClassVar[str] = "/v2/enterprise/sessions"
    count_field: ClassVar[str] = "sessions_count"
    organizations: ClassVar[Listing] = Listing(
        "organization", "/v2/enterprise/organizations", "org_id", "org_name", "created_at"
    )
    users: ClassVar[Listing] = Listing("user", "/v2/enterprise/members", "user_id", None, "created_at")
    tells_service_users: ClassVar[bool] = False
    key_to_set: ClassVar[str] = "the personal key (apk_user_…) of an Enterprise admin who still has access"
    key_to_list_sessions: ClassVar[str] = "the personal key (apk_user_…) of an Enterprise admin"

    window_end: WindowEnd = "exclusive"

    def window(self, start: datetime, end: datetime) -> Params:
        """The parameters for [start, end)."""
        until = end - timedelta(microseconds=1) if self.window_end == "inclusive" else end
        return [("start_date", zulu(start)), ("end_date", zulu(until))]

    def created_within(self, start: datetime, end: datetime) -> Params:
        """The parameters for a list of the sessions created in [start, end), and perhaps of some at its ends."""
        return [("created_date_from", zulu(start)), ("created_date_to", zulu(end))]

    def page(self, found: int, cursor: str | None) -> Params:
        """The parameters for the page after the first `found` items."""
        return [("skip", str(found)), ("limit", str(PAGE_SIZE))]

    def has_more(self, page: dict[str, Any]) -> tuple[bool, str | None]:
        """Whether another page follows, and its cursor. Raises KeyError or TypeError if the page doesn't say."""
        return _parse_bool(page["has_more"]), None

    def parse_instant(self, value: Any) -> datetime:
        """Parse a point in time as the API writes it. Raises TypeError or ValueError for anything else."""
        instant = datetime.fromisoformat(value)
        try:
            return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
        except OverflowError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class V3:
    """Keys of service users; Unix seconds; pagination by cursor.

    The contract that is known for certain has no list of users; the published pages have one at this path.
    `window_end` is as in V2, but with a resolution of one second.
    """

    name: ClassVar[VersionName] = "v3"
    sessions_path: ClassVar[str] = "/v3/enterprise/metrics/sessions"
    session_list_path: ClassVar[str] = "/v3/enterprise/sessions"
    count_field: ClassVar[str] = "sessions_created_count"
    organizations: ClassVar[Listing] = Listing(
        "organization", "/v3/enterprise/organizations", "org_id", "name", "created_at"
    )
    users: ClassVar[Listing] = Listing("user", "/v3/enterprise/members/users", "user_id", None, None)
    tells_service_users: ClassVar[bool] = True
    key_to_set: ClassVar[str] = (
        "the key (cog_…) of an enterprise service user that has the permission ViewAccountMetrics"
    )
    key_to_list_sessions: ClassVar[str] = (
        "the key (cog_…) of an enterprise service user that also has the permission ViewAccountSessions"
    )

    window_end: WindowEnd = "exclusive"

    def window(self, start: datetime, end: datetime) -> Params:
        """The parameters for [start, end). Raises ValueError for fractions of a second, which v3 does not support."""
        if start.microsecond or end.microsecond:
            raise ValueError(f"v3 accepts whole seconds only: {start} to {end}")
        until = int(end.timestamp()) - (self.window_end == "inclusive")
        return [("time_after", str(int(start.timestamp()))), ("time_before", str(until))]

    def created_within(self, start: datetime, end: datetime) -> Params:
        """The parameters for a list of the sessions created in [start, end), and perhaps of some at its ends."""
        return [("created_after", str(int(start.timestamp()))), ("created_before", str(math.ceil(end.timestamp())))]

    def page(self, found: int, cursor: str | None) -> Params:
        """The parameters for the page at `cursor`, or the first."""
        return [("first", str(PAGE_SIZE)), *([("after", cursor)] if cursor else [])]

    def has_more(self, page: dict[str, Any]) -> tuple[bool, str | None]:
        """Whether another page follows, and its cursor. Raises KeyError or TypeError if the page doesn't say."""
        has_more, cursor = _parse_bool(page["has_next_page"]), page["end_cursor"]
        if not has_more:
            return False, None
        if not (isinstance(cursor, str) and 0 < len(cursor.encode()) <= LONGEST_CURSOR):
            raise TypeError("another page but no usable cursor")
        return True, cursor

    def parse_instant(self, value: Any) -> datetime:
        """Parse a point in time as the API writes it. Raises TypeError or ValueError for anything else."""
        if type(value) is not int:
            raise TypeError("not Unix seconds")
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError) as error:
            raise ValueError(str(error)) from None


def _parse_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


def zulu(instant: datetime) -> str:
    """Format an instant in UTC, with Z: the + of an offset would be decoded to a space on the server."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
