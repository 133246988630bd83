"""Reads the sandbox's list of sessions over HTTP, in either version of the API."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import httpx

from resources.sandbox.contract import LIST_PATH, LIST_PATH_V3, Version
from resources.sandbox.lies import (
    MISSING,
    AddFields,
    Change,
    Double,
    Enlarge,
    LeaveOut,
    Lie,
    Move,
    NeverEnd,
    Postdate,
    Refuse,
    RepeatPage,
    Shift,
    Spoil,
    Swap,
    WrongTotal,
)
from resources.sandbox.server import Sandbox
from tests.support import sandbox_v3
from tests.support.sandbox import KEY, Params, client_of, text

Item = dict[str, Any]


def every_lie(days: tuple[date, date]) -> dict[str, Lie]:
    """An example of each way of lying, by name. Two of the busiest organizations swap sessions on `days`."""
    wrong: dict[str, Any] = {"missing": MISSING, "null": None, "a list": [], "a text": "?", "too long": "org-" * 2500}
    return {
        "leaves some out": LeaveOut(),
        "leaves an organization out": LeaveOut(share=1, organizations=(0,)),
        "doubles some": Double(),
        "doubles some under another id": Double(has_same_id=False),
        "doubles some in another organization": Double(has_same_organization=False),
        "moves some to another organization": Move(),
        "moves some to an unknown organization": Move(to="org-unknown"),
        "moves some to an id of 10,000 characters": Move(to="org-" + "x" * 9_996),
        "moves some to another user": Move(owner="user_id"),
        "swaps two": Swap(days),
        "is an hour late": Shift(),
        "is an hour early": Shift(timedelta(hours=-1)),
        "grows while it is read": Change(3),
        "shrinks while it is read": Change(-3),
        "never ends": NeverEnd(),
        "repeats the first page forever": NeverEnd(repeats=True),
        "repeats a page": RepeatPage(),
        "is forbidden": Refuse(403),
        "does not exist": Refuse(404),
        "breaks in the middle": Refuse(500, from_page=1),
        "states a total that is too high": WrongTotal(7),
        "states a total that is too low": WrongTotal(-7),
        "states no total": WrongTotal(None),
        "is from the future": Postdate(),
        "has pages of 10 MB": Enlarge(),
        "has unknown fields": AddFields(),
        **{
            f"has a {name} that is {how}": Spoil(name, value)
            for name in ("session_id", "org_id", "user_id", "created_at")
            for how, value in wrong.items()
        },
    }


@dataclass(frozen=True)
class Reader:
    """A client of the list in one version."""

    client: httpx.Client
    version: Version

    @property
    def path(self) -> str:
        return LIST_PATH if self.version == "v2" else LIST_PATH_V3

    def window(self, start: datetime, end: datetime) -> Params:
        if self.version == "v2":
            return {"created_date_from": text(start), "created_date_to": text(end)}
        return {"created_after": str(sandbox_v3.unix(start)), "created_before": str(sandbox_v3.unix(end))}

    def get(self, **params: Any) -> httpx.Response:
        return self.client.get(self.path, params=params)

    def pages(self, params: Params, size: int = 200, at_most: int = 100) -> list[Any]:
        """The bodies of the pages, the first `at_most` of them."""
        found: list[Any] = []
        params = {**params, "limit" if self.version == "v2" else "first": str(size)}
        while len(found) < at_most:
            answer = self.client.get(self.path, params=params)
            assert answer.status_code == 200, answer.text
            found.append(answer.json())
            if not found[-1]["has_more" if self.version == "v2" else "has_next_page"]:
                break
            if self.version == "v2":
                params["skip"] = str(found[-1]["next_cursor"])
            else:
                params["after"] = found[-1]["end_cursor"]
        return found

    def items(self, start: datetime, end: datetime, filters: Params | None = None, size: int = 200) -> list[Item]:
        """Every item that the pages have, in their order."""
        params = {**self.window(start, end), **(filters or {})}
        return [item for page in self.pages(params, size) for item in page["items"]]


@contextmanager
def reader_of(sandbox: Sandbox, version: Version) -> Iterator[Reader]:
    with client_of(sandbox, KEY if version == "v2" else sandbox_v3.KEY) as client:
        yield Reader(client, version)


def created_at(item: Item) -> datetime:
    """When the session was created, to the second in v3."""
    moment = item["created_at"]
    return sandbox_v3.moment(moment) if isinstance(moment, int) else datetime.fromisoformat(moment)
