"""Requests to the sandbox as its log records them, and the bodies with which it refuses them."""

import contextlib
import http.client
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qsl

from pydantic import AfterValidator, TypeAdapter, ValidationError
from starlette.types import Scope

JSON = "application/json"
PROBLEM = "application/problem+json"
STARTS = {True: ("time_after", "created_after"), False: ("start_date", "start", "created_date_from")}
ENDS = {True: ("time_before", "created_before"), False: ("end_date", "end", "created_date_to")}
LAST_SECOND = 253_402_300_799


def _in_calendar(seconds: int) -> int:
    if not 0 <= seconds <= LAST_SECOND:
        raise ValueError("not Unix seconds in the years 1970 to 9999")
    return seconds


UnixSeconds = Annotated[int, AfterValidator(_in_calendar)]
SECONDS = TypeAdapter[int](UnixSeconds)
DATETIME = TypeAdapter(datetime)


def aware(moment: datetime) -> datetime:
    """The moment with a time zone, which is UTC if it has none."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def from_unix(seconds: int) -> datetime:
    """The moment of a Unix time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def is_v3(path: str) -> bool:
    """Whether the path belongs to v3 of the API."""
    return path.startswith("/v3/")


def problem(status: int, detail: str) -> dict[str, Any]:
    """The members of an RFC 9457 problem without a type of its own."""
    return {"type": "about:blank", "title": phrase(status), "status": status, "detail": detail}


def phrase(status: int) -> str:
    """The status's reason phrase; "Error" if it has none."""
    return http.client.responses.get(status, "Error")


@dataclass(frozen=True)
class LoggedRequest:
    """One request as it arrived, and the status of its response (None: it got none). Never contains the key."""

    path: str
    params: tuple[tuple[str, str], ...]
    start: datetime | None
    end: datetime | None
    org_ids: tuple[str, ...]
    user_ids: tuple[str, ...]
    status: int | None = None


def parse_request(scope: Scope) -> LoggedRequest:
    """The log entry of an ASGI request, without a status. Moments that can't be parsed are None."""
    params = tuple(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    path: str = scope["path"]

    def moment(*names: str) -> datetime | None:
        sent = [value for name, value in params if name in names]
        with contextlib.suppress(ValidationError):
            if sent and is_v3(path):
                return from_unix(SECONDS.validate_python(sent[-1]))
            return aware(DATETIME.validate_python(sent[-1])) if sent else None
        return None

    return LoggedRequest(
        path=path,
        params=params,
        start=moment("time_after", "created_after")
        if is_v3(path)
        else moment("start_date", "start", "created_date_from"),
        end=moment("time_before", "created_before") if is_v3(path) else moment("end_date", "end", "created_date_to"),
        org_ids=tuple(value for name, value in params if name == "org_ids"),
        user_ids=tuple(value for name, value in params if name == "user_ids"),
    )
