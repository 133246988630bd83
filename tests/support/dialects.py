"""Both versions of the API as seen on the wire, and requests that work with either."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import pytest

from resources.devin_api import DevinAPI, DevinClient
from resources.devin_lists import User
from resources.sandbox.contract import (
    MEMBERS_PATH,
    MEMBERS_PATH_V3,
    ORGANIZATIONS_PATH,
    ORGANIZATIONS_PATH_V3,
    SESSIONS_PATH,
    SESSIONS_PATH_V3,
)
from tests.support.client import END, START, using

KEY = "cog_sandbox"
NOW = datetime(2026, 1, 10, 13, 45, 30, 250_000, tzinfo=UTC)
PROBLEM = "application/problem+json"

Ask = Callable[[DevinClient], Awaitable[object]]


@dataclass(frozen=True)
class Dialect:
    """One version of the API as seen on the wire, for tests that stand in for its server."""

    name: Literal["v2", "v3"]
    key: str
    key_wanted: str
    sessions_path: str
    organizations_path: str
    users_path: str
    count_field: str
    org_name_field: str
    created_at: object

    def count_body(self, value: object) -> bytes:
        return json.dumps({self.count_field: value}).encode()

    def page(self, *ids: str, more: bool = False, cursor: str = "more") -> bytes:
        """A page whose items are both organizations and users, so that it fits either list."""
        items = [
            {"org_id": id_, "user_id": id_, self.org_name_field: "One", "created_at": self.created_at} for id_ in ids
        ]
        if self.name == "v2":
            return json.dumps({"items": items, "has_more": more}).encode()
        return page_v3(*items, has_next_page=more, end_cursor=cursor if more else None)


V2 = Dialect(
    "v2",
    "apk_user_sandbox",
    r"the personal key \(apk_user_…\) of an Enterprise admin",
    SESSIONS_PATH,
    ORGANIZATIONS_PATH,
    MEMBERS_PATH,
    "sessions_count",
    "org_name",
    "2024-05-06T07:08:09Z",
)
V3 = Dialect(
    "v3",
    KEY,
    r"the key \(cog_…\) of an enterprise service user that has the permission ViewAccountMetrics",
    SESSIONS_PATH_V3,
    ORGANIZATIONS_PATH_V3,
    MEMBERS_PATH_V3,
    "sessions_created_count",
    "name",
    1_714_979_289,
)


def page_v3(*items: object, has_next_page: object = False, end_cursor: object = None) -> bytes:
    return json.dumps({"items": items, "has_next_page": has_next_page, "end_cursor": end_cursor}).encode()


def organization_v3(org_id: object = "org-1", name: object = "One", created_at: object = 0) -> dict[str, object]:
    return {"org_id": org_id, "name": name, "created_at": created_at}


async def counting(client: DevinClient) -> object:
    return await client.count(START, END)


async def listing_organizations(client: DevinClient) -> object:
    return [o.org_id for o in (await client.organizations()).items]


async def listing_users(client: DevinClient) -> object:
    return [user.user_id for user in (await client.users()).items]


async def everything(client: DevinClient) -> object:
    return [await ask(client) for ask in (counting, listing_organizations, listing_users)]


def users(api: DevinAPI) -> list[User]:
    return using(api, lambda client: client.users()).items


def some(number: int, first: int = 0) -> list[str]:
    return [f"id-{n}" for n in range(first, first + number)]


both_lists = pytest.mark.parametrize("ask", [listing_organizations, listing_users])
every_question = pytest.mark.parametrize("ask", [counting, listing_organizations, listing_users])
