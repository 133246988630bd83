"""What differs between v2 and v3 of the API: paths, parameters, fields, how lists go on, and who gets a key.

How a question travels, and what becomes of its answer, is in `devin_api`.
"""

import re
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
    """A list that the source gives page by page: where, and which fields of an item are read."""

    noun: str
    path: str
    id_field: str
    name_field: str | None
    created_field: str | None


@dataclass(frozen=True)
class V2:
    """Personal keys of Enterprise admins; date-times; lists by numbers to skip.

    `bounds`: the contract has two pairs of parameters for the window and describes only start_date and end_date.
    `window_end`: whether the source takes the end that is sent as part of the window, which no contract says.
    """

    name: ClassVar[VersionName] = "v2"
    sessions_path: ClassVar[str] = "/v2/enterprise/metrics/sessions"
    count_field: ClassVar[str] = "sessions_count"
    organizations: ClassVar[Listing] = Listing(
        "organization", "/v2/enterprise/organizations", "org_id", "org_name", "created_at"
    )
    users: ClassVar[Listing] = Listing("user", "/v2/enterprise/members", "user_id", None, "created_at")
    key_to_set: ClassVar[str] = "the personal key (apk_user_…) of an Enterprise admin who still has access"

    bounds: Literal["start_date", "start"] = "start_date"
    window_end: WindowEnd = "exclusive"

    def window(self, start: datetime, end: datetime) -> Params:
        """The parameters for [start, end)."""
        first, last = ("start_date", "end_date") if self.bounds == "start_date" else ("start", "end")
        until = end - timedelta(microseconds=1) if self.window_end == "inclusive" else end
        return [(first, zulu(start)), (last, zulu(until))]

    def page(self, found: int, cursor: str | None) -> Params:
        """The parameters for the page that follows `found` items."""
        return [("skip", str(found)), ("limit", str(PAGE_SIZE))]

    def has_more(self, page: dict[str, Any]) -> tuple[bool, str | None]:
        """Whether a page follows, and its cursor. Raises KeyError or TypeError if the page does not say."""
        return _true_or_false(page["has_more"]), None

    def instant(self, value: Any) -> datetime:
        """A moment as the source writes it. Raises TypeError or ValueError for anything else."""
        instant = datetime.fromisoformat(value)
        try:
            return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
        except OverflowError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class V3:
    """Keys of service users; Unix seconds; lists by cursors.

    The contract that is known for certain names no list of users; the published pages have one at this path.
    `window_end` is as in V2, with a second as the shortest time that can be told.
    """

    name: ClassVar[VersionName] = "v3"
    sessions_path: ClassVar[str] = "/v3/enterprise/metrics/sessions"
    count_field: ClassVar[str] = "sessions_created_count"
    organizations: ClassVar[Listing] = Listing(
        "organization", "/v3/enterprise/organizations", "org_id", "name", "created_at"
    )
    users: ClassVar[Listing] = Listing("user", "/v3/enterprise/members/users", "user_id", None, None)
    key_to_set: ClassVar[str] = (
        "the key (cog_…) of an enterprise service user that has the permission ViewAccountMetrics"
    )

    window_end: WindowEnd = "exclusive"

    def window(self, start: datetime, end: datetime) -> Params:
        """The parameters for [start, end). Raises ValueError for a part of a second, which v3 cannot be asked about."""
        if start.microsecond or end.microsecond:
            raise ValueError(f"v3 knows whole seconds only: {start} to {end}")
        until = int(end.timestamp()) - (self.window_end == "inclusive")
        return [("time_after", str(int(start.timestamp()))), ("time_before", str(until))]

    def page(self, found: int, cursor: str | None) -> Params:
        """The parameters for the page at `cursor`, or the first."""
        return [("first", str(PAGE_SIZE)), *([("after", cursor)] if cursor else [])]

    def has_more(self, page: dict[str, Any]) -> tuple[bool, str | None]:
        """Whether a page follows, and its cursor. Raises KeyError or TypeError if the page does not say."""
        has_more, cursor = _true_or_false(page["has_next_page"]), page["end_cursor"]
        if not has_more:
            return False, None
        if not (isinstance(cursor, str) and 0 < len(cursor.encode()) <= LONGEST_CURSOR):
            raise TypeError("another page but no usable cursor")
        return True, cursor

    def instant(self, value: Any) -> datetime:
        """A moment as the source writes it. Raises TypeError or ValueError for anything else."""
        if type(value) is not int:
            raise TypeError("not Unix seconds")
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError) as error:
            raise ValueError(str(error)) from None


def _true_or_false(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


def check_key(key: str) -> str:
    """`key` itself if it can be one. Raises ValueError, which never quotes the key."""
    if key.startswith("apk_") and not key.startswith("apk_user_"):
        raise ValueError("it starts with apk_ but not apk_user_: keys of one organization cannot read the enterprise")
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", key):
        raise ValueError("it holds blanks or characters that no key has")
    return key


def version_for(key: str, wanted: Literal["auto", "v2", "v3"]) -> VersionName:
    """The version to ask with this key. Raises ValueError, which never quotes the key, if they do not fit."""
    of_key: VersionName | None = "v2" if key.startswith("apk_user_") else "v3" if key.startswith("cog_") else None
    if wanted == "auto":
        if of_key is None:
            raise ValueError("it starts with neither apk_user_ nor cog_, so DEVIN_API_VERSION must say v2 or v3")
        return of_key
    if of_key not in (None, wanted):
        whose = "personal keys, apk_user_," if of_key == "v2" else "service users' keys, cog_,"
        raise ValueError(f"{whose} are for {of_key} of the API, but DEVIN_API_VERSION={wanted}")
    return wanted


def zulu(instant: datetime) -> str:
    """An instant in UTC: a raw + of an offset would be decoded to a blank on the other side."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
