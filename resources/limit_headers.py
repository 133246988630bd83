"""What the API says in its headers about its rate limit, before it has to refuse a request."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from resources.devin_answers import sanitized
from resources.http_dates import parse_http_date

# A larger number of seconds is since 1970, and one larger than the second is of milliseconds.
_LONGEST_SECONDS, _LONGEST_EPOCH_SECONDS = 10**8, 10**11
_ITEM = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^\s";,=]+)((?:\s*;[^;,"]*(?:"(?:[^"\\]|\\.)*")?)*)\s*(?:,|$)')


def limit_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers about a rate limit, fit to be shown."""
    return {name: sanitized(value, 60) for name, value in headers.items() if "ratelimit" in name.replace("-", "")}


def seconds_until_reset(headers: Mapping[str, str]) -> float | None:
    """The seconds for which the API allows no more requests; None unless a header says that none remains until then.

    Understood are `RateLimit` with `RateLimit-Policy` of the IETF's drafts, with and without names of policies, and the
    fields Remaining and Reset after `RateLimit-` or `X-RateLimit-`. What can't be read counts as absent.
    """
    fields = {name.lower(): value.strip() for name, value in headers.items()}
    clock = parse_http_date(fields.get("date", "")) or datetime.now(UTC)  # this machine's may be wrong
    stated = [*_of_policies(fields), *_of_fields(fields)]
    found = [seconds for remaining, reset in stated if remaining <= 0 and (seconds := _seconds(reset, clock)) > 0]
    return max(found, default=None)


def _of_policies(fields: Mapping[str, str]) -> Iterator[tuple[float, str]]:
    """What remains and when it is reset, for each policy in `RateLimit`."""
    windows = {name: of_name.get("w", "") for name, of_name in _items(fields.get("ratelimit-policy", ""))}
    for name, of_name in _items(fields.get("ratelimit", "")):
        if "r" in of_name:
            yield _number(of_name["r"]), of_name.get("t", windows.get(name, ""))
    flat = dict(part.strip().split("=", 1) for part in fields.get("ratelimit", "").split(",") if "=" in part)
    yield _number(flat.get("remaining", "")), flat.get("reset", "")


def _items(field: str) -> list[tuple[str, dict[str, str]]]:
    """The items of a structured field (RFC 9651) with their parameters; none unless all of it can be read."""
    found, at = [], 0
    while at < len(field):
        item = _ITEM.match(field, at)
        if item is None:
            return []
        pairs = (part.strip().partition("=") for part in item[2].split(";") if part.strip())
        found.append((item[1].strip('"'), {key: value for key, _, value in pairs}))
        at = item.end()
    return found


def _of_fields(fields: Mapping[str, str]) -> Iterator[tuple[float, str]]:
    for prefix in ("ratelimit-", "x-ratelimit-", "x-rate-limit-"):
        yield _number(fields.get(f"{prefix}remaining", "")), fields.get(f"{prefix}reset", "")


def _number(text: str) -> float:
    """The number; infinity if it is none, so that it stops nobody."""
    return float(text) if re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", text.strip(), re.ASCII) else math.inf


def _seconds(reset: str, clock: datetime) -> float:
    """The seconds until a reset; not above 0 if that can't be read."""
    at = _number(reset)
    if at == math.inf:
        date = parse_http_date(reset)
        return (date - clock).total_seconds() if date else 0.0
    if at > _LONGEST_EPOCH_SECONDS:
        at /= 1000
    return at - clock.timestamp() if at > _LONGEST_SECONDS else at
