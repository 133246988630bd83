"""Interprets HTTP responses of the Devin API: a count, a page of a list, or a kind of failure."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from resources.devin_errors import ContractBroken, Misrouted, Rejected, Unauthorized, Unavailable
from resources.devin_key import KEY_VARIABLE, without_key
from resources.devin_versions import V2, V3, Params
from resources.http_dates import parse_http_date
from resources.outage import TransientFailure

# No enterprise has more sessions, and a database can still add up millions of such counts.
LARGEST_COUNT = 10**12
# 408 and 429 call for a retry by definition, and 5xx is the server's own failure; any other status would repeat.
RETRIED_STATUSES = frozenset({408, 429}) | frozenset(range(500, 600))
# With these statuses the API itself refuses a request. A 401 is about the key.
REFUSALS = frozenset({400, 403, 404, 410, 422})


@dataclass(frozen=True)
class Request:
    """One request to send. `description` is for messages, such as "Counting sessions of organization org-1 from …".

    `scope` is what a refusal is about: "everyone", so that it is about the key; "some", whom `ids` lists; a "list"; or
    the "form" of the request. `is_private`: no message quotes a response, beyond the API's own words for an error.
    """

    path: str
    params: Params
    description: str
    scope: Literal["everyone", "some", "list", "form"]
    ids: tuple[str, ...] = ()
    is_private: bool = False


@dataclass(frozen=True)
class Response:
    """A response, from the API or from something in between. `retry_after` is in seconds; `is_private` as requested."""

    status: int
    content_type: str
    body: bytes
    retry_after: float | None
    is_private: bool = False

    @property
    def detail(self) -> str:
        """The error message in the body, in parentheses and short enough for a sentence; empty if there is none."""
        return _error_detail(self.body, self.is_private)

    @property
    def is_from_api(self) -> bool:
        """Whether it may come from the API itself: a JSON object with a JSON content type, unlike a web page."""
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            return False
        try:
            return isinstance(parse_json(self.body), dict)
        except (ValueError, RecursionError):
            return False

    def __str__(self) -> str:
        kind = "" if self.is_from_api else f" as {sanitized(self.content_type, 60) or 'no content type'}"
        return f"{self.status}{kind} {self.detail}".rstrip()


# What to do about a response that is not the API's own. Any other 3xx is treated as 302.
_HINTS = {
    302: "It redirects elsewhere, and redirects are never followed: check DEVIN_API_URL.",
    407: "A proxy requires a user and password: set both in HTTPS_PROXY.",
    **dict.fromkeys(
        (413, 414, 431),
        "It rejects requests of that length: set DEVIN_FETCH=direct, which asks about one organization at a time.",
    ),
}
_DEFAULT_HINT = "Check DEVIN_API_URL and the proxy, and ask your network administrator."


class SelfContradiction(ValueError):
    """A JSON object has a key more than once, with different values. The message is part of a sentence."""


def parse_json(body: bytes) -> Any:
    """The JSON value in `body`, in any of Unicode's encodings, with or without a byte order mark.

    Unlike `json.loads`, refuses objects that have a key twice with two values, of which only the last would be seen.
    Raises SelfContradiction, another ValueError, or RecursionError.
    """
    return json.loads(body, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if repr(value) != repr(found[key]):
                raise SelfContradiction(f"it has {_quoted(key)} more than once, with different values")
    return found


def parse_response(response: Response, request: Request, version: V2 | V3) -> dict[str, Any]:
    """The body's JSON object if the status is 200. Raises TransientFailure, or the DevinAPIError that fits."""
    description, status, body = request.description, response.status, response.body
    if status == 200:
        try:
            answer = parse_json(body)
        except SelfContradiction as error:
            raise ContractBroken(
                f"{description}: the API's response contradicts itself: {error}. None of it was stored. "
                "Ask the API's owner."
            ) from None
        except (ValueError, RecursionError):
            message = f"the API returned 200 with a body that is not JSON: {response.detail}"
            raise TransientFailure(message) from None
        if not isinstance(answer, dict):
            raise ContractBroken(
                f"{description}: the API returned {response}, which is not a JSON object. None of it was stored."
            )
        return answer
    retry_after = response.retry_after
    if status in RETRIED_STATUSES:
        message = f"the API returned {status} {response.detail}".rstrip()
        raise TransientFailure(message, retry_after, pauses_all=status == 429 or retry_after is not None)
    if response.is_from_api:
        if status == 401 or (status == 403 and request.scope == "everyone"):
            raise Unauthorized(
                f"{description}: the API returned {response}. The key in {KEY_VARIABLE} is not accepted by "
                f"{version.name} of the API: set it to {version.key_to_set}."
            )
        if status in REFUSALS:
            hint = " Check DEVIN_API_URL." if status == 404 and request.scope == "everyone" else ""
            raise Rejected(f"{description}: the API returned {response}.{hint}", status)
    not_the_api = f"something between you and the API, such as a firewall or a proxy, returned {response}"
    if status == 403:
        # A firewall that took the requests for a flood lets them through later. It says nothing about the key.
        raise TransientFailure(not_the_api, retry_after, pauses_all=retry_after is not None)
    hint = _HINTS.get(302 if 300 <= status < 400 else status, _DEFAULT_HINT)
    if status == 401:
        hint += f" If there is nothing in between, the key in {KEY_VARIABLE} may have expired."
    message = f"{description}: {not_the_api}. {hint} None of it was stored."
    if request.scope == "some":
        raise Unavailable(f"{message} The next run will retry it.")
    raise Misrouted(message)


def parse_count(body: dict[str, Any], version: V2 | V3, description: str) -> int:
    """The count in a body. Raises ContractBroken."""
    count = body.get(version.count_field)
    if type(count) is not int or not 0 <= count <= LARGEST_COUNT:
        raise ContractBroken(
            f"{description}: the response's {version.count_field} is {_quoted(count)}, "
            f"not a whole number from 0 to {LARGEST_COUNT:,}. "
            "None of it was stored. The API may have changed: ask its owner."
        )
    return count


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after` in either form of RFC 9110; None if absent or invalid.

    A date is compared with the response's own date, if it has one: this machine's clock may be wrong.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        until = parse_http_date(value)
        if until is None:
            return None
        seconds = (until - (parse_http_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _error_detail(body: bytes, is_private: bool) -> str:
    text = body.decode("utf-8", "replace")
    if b"\0" in body or text.count("\N{REPLACEMENT CHARACTER}") > len(text) // 10:
        return f"({len(body):,} bytes that are not text)"
    try:
        answer = json.loads(body)
        detail = answer.get("detail") or answer["title"]
        text = detail if isinstance(detail, str) else "; ".join(f"{d['loc'][-1]}: {d['msg']}" for d in detail)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        if is_private:
            return f"({len(body):,} bytes)"
    text = sanitized(text)
    return f"({text})" if text else ""


def _quoted(value: object) -> str:
    return "missing" if value is None else sanitized(repr(value), 60)


def sanitized(text: str, length: int = 200) -> str:
    """External `text` made safe for a message: on one line, and without the key, which a server may echo."""
    return " ".join("".join(c if c.isprintable() else " " for c in without_key(text)).split())[:length]
