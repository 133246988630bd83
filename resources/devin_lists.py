"""Interprets the pages of the API's lists: organizations, users and sessions."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from resources.devin_answers import sanitized
from resources.devin_errors import ContractBroken
from resources.devin_versions import V2, V3, Listing

LONGEST_ID = 256


@dataclass(frozen=True)
class Organization:
    """One organization as the API lists it. `created_at` is None if the API gives no usable one."""

    org_id: str
    org_name: str | None
    created_at: datetime | None


@dataclass(frozen=True)
class User:
    """One user as the API lists it. Names and email addresses are not read: the counts don't need them."""

    user_id: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class ListedSession:
    """What is read of a session that the API lists: no title, tag or address. None: the API gives no usable value.

    `user_id` may be a service user's. Only v3 says whether it is.
    """

    session_id: str
    org_id: str | None
    user_id: str | None
    created_at: datetime
    is_service_user: bool = False


Item = TypeVar("Item")


@dataclass(frozen=True)
class Listed(Generic[Item]):
    """Everything in a list, in the API's order.

    `problem` is a message for the user if the list contradicted itself each time it was read, else empty.
    """

    items: list[Item]
    problem: str = ""


ListedItem = tuple[str, str | None, datetime | None]


@dataclass
class ListReading:
    """One reading of a list: `items` is the number of entries, `found` has the distinct ones by id."""

    found: dict[str, ListedItem] = field(default_factory=dict)
    items: int = 0
    totals: set[int] = field(default_factory=set)

    def add(self, items: Sequence[ListedItem], total: object) -> bool:
        """Add a page and the total that it states. Returns whether any item is new."""
        before = len(self.found)
        self.items += len(items)
        self.found |= {item[0]: item for item in items}
        if type(total) is int:  # only v2 promises a total
            self.totals.add(total)
        return len(self.found) > before

    @property
    def contradiction(self) -> str:
        """What is wrong with the list, as part of a sentence; empty if nothing is."""
        distinct = len(self.found)
        if self.totals <= {distinct} and self.items == distinct:
            return ""
        totals = f"its total is {', then '.join(f'{n:,}' for n in sorted(self.totals))}, and " if self.totals else ""
        repeats = f" ({self.items - distinct:,} more than once)" if self.items > distinct else ""
        return f"{totals}it lists {distinct:,} distinct ones{repeats}"


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A page of a list: the items that are usable, how many there are in all, whether another follows, its cursor."""

    items: list[Item]
    number: int
    has_more: bool
    cursor: str | None


def parse_page(body: dict[str, Any], listing: Listing, version: V2 | V3, description: str) -> Page[ListedItem]:
    """Id, name and creation time of each item of a page.

    Requests need the ids, so an invalid one raises ContractBroken; an invalid name or time is only None.
    """

    def parse(item: Any) -> ListedItem:
        return _parse_id(item[listing.id_field]), _parse_name(item, listing), _parse_creation(item, listing, version)

    return _parse(body, parse, version, description)


def parse_sessions(body: dict[str, Any], version: V2 | V3, description: str) -> Page[ListedSession]:
    """The sessions of a page, without those that lack a usable id or time: totals show what the list lacks.

    Raises ContractBroken.
    """
    return _parse(body, lambda item: _parse_session(item, version), version, description)


def _parse(body: dict[str, Any], parse: Callable[[Any], Item | None], version: V2 | V3, description: str) -> Page[Item]:
    """The page; items of which `parse` makes nothing are left out. Raises ContractBroken."""
    at = ""
    try:
        has_more, cursor = version.has_more(body)
        if not isinstance(body["items"], list):
            raise TypeError("items is not a list")
        items: list[Item] = []
        for number, item in enumerate(body["items"], 1):
            at = f", item {number} of the page"
            if (parsed := parse(item)) is not None:
                items.append(parsed)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractBroken(
            f"{description}{at}: the page breaks the contract ({type(error).__name__}: {sanitized(str(error))})."
        ) from None
    return Page(items, len(body["items"]), has_more, cursor)


def _parse_session(item: object, version: V2 | V3) -> ListedSession | None:
    try:
        if not isinstance(item, dict):
            raise TypeError("not an object")
        created_at = version.parse_instant(item["created_at"])
        org_id, user_id = _usable_id(item.get("org_id")), _usable_id(item.get("user_id"))
        service_user_id = None if user_id else _usable_id(item.get("service_user_id"))
        user_id, is_service_user = user_id or service_user_id, service_user_id is not None
        return ListedSession(_parse_id(item["session_id"]), org_id, user_id, created_at, is_service_user)
    except (KeyError, TypeError, ValueError):
        return None


def _usable_id(value: object) -> str | None:
    try:
        return sys.intern(_parse_id(value))  # one that is counted on many days is held once
    except (TypeError, ValueError):
        return None


def _parse_id(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("the id is not a string")
    value.encode()  # raises a ValueError for half a surrogate pair, which no table can hold
    if not (value.isprintable() and 0 < len(value) <= LONGEST_ID):
        raise ValueError("the id is unusable")
    return value


def _parse_name(item: dict[str, Any], listing: Listing) -> str | None:
    name = item.get(listing.name_field) if listing.name_field else None
    # No table can store half a surrogate pair, and not every database a NUL.
    return re.sub("[\\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", name) if isinstance(name, str) else None


def _parse_creation(item: dict[str, Any], listing: Listing, version: V2 | V3) -> datetime | None:
    try:
        return version.parse_instant(item[listing.created_field]) if listing.created_field else None
    except (KeyError, TypeError, ValueError):
        return None
