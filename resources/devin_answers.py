"""What an HTTP answer of the Devin API means: a count, a page of a list, or a kind of failure."""

import email.utils
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar

from resources.devin_errors import ContractBroken, Misrouted, Rejected, Unauthorized, Unavailable
from resources.devin_key import KEY_VARIABLE, without_key
from resources.devin_versions import V2, V3, Listing, Params
from resources.outage import Passing

LONGEST_ID = 256
# No enterprise has so many sessions, and a database can still add up millions of them.
LARGEST_COUNT = 10**12
# 408 and 429 ask for another try by definition, 5xx is the server's own trouble; any other status repeats itself.
RETRIED_STATUSES = frozenset({408, 429}) | frozenset(range(500, 600))
# With these the API itself refuses a question. A 401 is about the key.
REFUSALS = frozenset({400, 403, 404, 410, 422})


@dataclass(frozen=True)
class Question:
    """One question as it is sent, and as a sentence has it. `whom`: whom a refusal of it is about; `ids` names some."""

    path: str
    params: Params
    asked: str
    whom: Literal["everyone", "some", "list"]
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Organization:
    """One organization as the source lists it. `created_at` is None where the source gives none."""

    org_id: str
    org_name: str | None
    created_at: datetime | None


@dataclass(frozen=True)
class User:
    """One user as the source lists it. Names and addresses are not read: the counts need none."""

    user_id: str
    created_at: datetime | None


Item = TypeVar("Item")


@dataclass(frozen=True)
class Listed(Generic[Item]):
    """Everything that a list holds, in the source's order.

    `problem` is a sentence for the user where the list contradicted itself each time that it was read, else empty.
    """

    items: list[Item]
    problem: str = ""


@dataclass(frozen=True)
class CameBack:
    """What came back, from the API or from something on the way to it. `retry_after` is in seconds."""

    status: int
    content_type: str
    body: bytes
    retry_after: float | None

    @property
    def is_of_the_api(self) -> bool:
        """Whether the API itself may have said it: a JSON object that is marked as one. Web pages are not."""
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            return False
        try:
            return isinstance(json.loads(self.body), dict)
        except (ValueError, RecursionError):
            return False

    def __str__(self) -> str:
        kind = "" if self.is_of_the_api else f" as {sanitized(self.content_type, 60) or 'nothing that has a type'}"
        return f"{self.status}{kind} {_said(self.body)}".rstrip()


# What to do about an answer that is not the API's own. Any other 3xx is as 302.
_ON_THE_WAY = {
    302: "It sends elsewhere, which is never followed: check DEVIN_API_URL.",
    407: "A proxy asks for a user and a password: set both in HTTPS_PROXY.",
    **dict.fromkeys(
        (413, 414, 431),
        "It takes no question so long: set DEVIN_FETCH=direct, which asks about one organization at a time.",
    ),
}
_NETWORK = "Check DEVIN_API_URL and the proxy, and ask the administrator of your network."


def parse_answer(came_back: CameBack, question: Question, version: V2 | V3) -> dict[str, Any]:
    """The body's JSON object if the status is 200; else the failure, by its kind."""
    asked, status, body = question.asked, came_back.status, came_back.body
    if status == 200:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise Passing(f"the source answered 200 with a body that is not JSON: {_said(body)}") from None
        if not isinstance(answer, dict):
            raise ContractBroken(
                f"{asked}: the source answered {came_back}, which is not a JSON object. Nothing of it was stored."
            )
        return answer
    retry_after = came_back.retry_after
    if status in RETRIED_STATUSES:
        message = f"the source answered {status} {_said(body)}".rstrip()
        raise Passing(message, retry_after, pauses_all=status == 429 or retry_after is not None)
    if came_back.is_of_the_api:
        if status == 401 or (status == 403 and question.whom == "everyone"):
            raise Unauthorized(
                f"{asked}: the source answered {came_back}. The key in {KEY_VARIABLE} is not accepted by "
                f"{version.name} of the API: set it to {version.key_to_set}."
            )
        if status in REFUSALS:
            hint = " Check DEVIN_API_URL." if status == 404 and question.whom == "everyone" else ""
            raise Rejected(f"{asked}: the source answered {came_back}.{hint}", status)
    not_the_api = f"something between you and the API, such as a firewall or a proxy, answered {came_back}"
    if status == 403:
        # Firewalls let through after a while what they took for a flood. It says nothing about the key.
        raise Passing(not_the_api, retry_after, pauses_all=retry_after is not None)
    hint = _ON_THE_WAY.get(302 if 300 <= status < 400 else status, _NETWORK)
    if status == 401:
        hint += f" If nothing is on the way, the key in {KEY_VARIABLE} may have ended."
    told = f"{asked}: {not_the_api}. {hint} Nothing of it was stored."
    if question.whom == "some":
        raise Unavailable(f"{told} It is asked again by the next command.")
    raise Misrouted(told)


def parse_count(body: dict[str, Any], version: V2 | V3, asked: str) -> int:
    """The count that a body holds. Raises ContractBroken."""
    count = body.get(version.count_field)
    if type(count) is not int or not 0 <= count <= LARGEST_COUNT:
        raise ContractBroken(
            f"{asked}: the answer's {version.count_field} is {_shown(count)}, "
            f"not a whole number from 0 to {LARGEST_COUNT:,}. "
            "Nothing of it was stored. The API may have changed; its owner can tell."
        )
    return count


ListedItem = tuple[str, str | None, datetime | None]


@dataclass
class ListReading:
    """One reading of a list. `items` is how many were listed, `found` are the distinct ones by id."""

    found: dict[str, ListedItem] = field(default_factory=dict)
    items: int = 0
    totals: set[int] = field(default_factory=set)

    def add(self, items: Sequence[ListedItem], total: object) -> bool:
        """Take in a page, and how many the list says that it has; whether any item is new."""
        before = len(self.found)
        self.items += len(items)
        self.found |= {item[0]: item for item in items}
        if type(total) is int:  # only v2 promises one
            self.totals.add(total)
        return len(self.found) > before

    @property
    def contradiction(self) -> str:
        """What is wrong with it, as a part of a sentence; empty if nothing is."""
        distinct = len(self.found)
        if self.totals <= {distinct} and self.items == distinct:
            return ""
        said = f"its total is {' and then '.join(f'{n:,}' for n in sorted(self.totals))}, and " if self.totals else ""
        twice = f" ({self.items - distinct:,} more than once)" if self.items > distinct else ""
        return f"{said}it lists {distinct:,} different ones{twice}"


def parse_page(
    page: dict[str, Any], listing: Listing, version: V2 | V3, asked: str
) -> tuple[list[ListedItem], bool, str | None]:
    """Id, name and creation of each item, whether a page follows, and its cursor.

    Ids are what is asked about, so an odd one breaks the contract; names and dates only adorn, and an odd one is None.
    """
    at = ""
    try:
        has_more, cursor = version.has_more(page)
        if not isinstance(page["items"], list):
            raise TypeError("items is no list")
        items: list[ListedItem] = []
        for number, item in enumerate(page["items"], 1):
            at = f", item {number} of the page"
            items.append((_id(item[listing.id_field]), _name_of(item, listing), _creation_of(item, listing, version)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractBroken(
            f"{asked}{at}: the page is not what the contract says ({type(error).__name__}: {sanitized(str(error))})."
        ) from None
    return items, has_more, cursor


def _id(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    value.encode()  # raises a ValueError for half a surrogate pair, which no table can hold
    if not (value.isprintable() and 0 < len(value) <= LONGEST_ID):
        raise ValueError("an id that cannot be asked about")
    return value


def _name_of(item: dict[str, Any], listing: Listing) -> str | None:
    name = item.get(listing.name_field) if listing.name_field else None
    # No table holds half a surrogate pair, and not every one a NUL.
    return re.sub("[\\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", name) if isinstance(name, str) else None


def _creation_of(item: dict[str, Any], listing: Listing, version: V2 | V3) -> datetime | None:
    try:
        return version.instant(item[listing.created_field]) if listing.created_field else None
    except (KeyError, TypeError, ValueError):
        return None


def limit_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: sanitized(value, 60) for name, value in headers.items() if "ratelimit" in name.replace("-", "")}


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `Retry-After` in either form of RFC 9110; None if absent or senseless.

    A date is read against the answer's own, if it has one: this machine's clock may be wrong.
    """
    value = headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        until = _http_date(value)
        if until is None:
            return None
        seconds = (until - (_http_date(headers.get("Date", "")) or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _http_date(value: str) -> datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)


def _said(body: bytes) -> str:
    """What the body says, short enough for a sentence."""
    text = body.decode("utf-8", "replace")
    try:
        answer = json.loads(body)
        detail = answer.get("detail") or answer["title"]
        text = detail if isinstance(detail, str) else "; ".join(f"{d['loc'][-1]}: {d['msg']}" for d in detail)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        pass
    text = sanitized(text)
    return f"({text})" if text else ""


def _shown(value: object) -> str:
    return "missing" if value is None else sanitized(repr(value), 60)


def sanitized(text: str, length: int = 200) -> str:
    """`text` from outside, fit for a message: without the key, which a source or proxy may echo, and on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in without_key(text)).split())[:length]
