"""Calls a server through the project's client, with a new event loop for each call."""

import asyncio
import json
import os
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from resources.calls import Calls
from resources.devin_api import DevinAPI, DevinClient
from resources.devin_key import URL_VARIABLE
from resources.devin_lists import Organization

KEY = "apk_user_4f1d7c9a0b2e86"
NOW = datetime(2025, 7, 16, 13, 45, 30, 250_000, tzinfo=UTC)
START = datetime(2025, 3, 3, tzinfo=UTC)
END = datetime(2025, 3, 4, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
SAFETY_SECONDS = 30
"""Longer than any test waits; one that would hang fails instead."""

T = TypeVar("T")


def api(url: str, **fields: Any) -> DevinAPI:
    # The client sends the key to this URL only; the fixture `environment` restores it. A variable cannot hold a NUL.
    os.environ[URL_VARIABLE] = url.replace("\0", "")
    return DevinAPI(base_url=url, **{"backoff_seconds": 0, "patience_seconds": 0, **fields})


def using(api: DevinAPI, ask: Callable[[DevinClient], Awaitable[T]], calls: Calls | None = None) -> T:
    async def main() -> T:
        async with asyncio.timeout(SAFETY_SECONDS), api.connect(calls or Calls()) as client:
            return await ask(client)

    return asyncio.run(main())


def count(
    api: DevinAPI, calls: Calls | None = None, *, start: datetime = START, end: datetime = END, **filters: list[str]
) -> int:
    return using(api, lambda client: client.count(start, end, **filters), calls)


def organizations(api: DevinAPI, calls: Calls | None = None) -> list[Organization]:
    return using(api, lambda client: client.organizations(), calls).items


def count_body(value: object) -> bytes:
    return json.dumps({"sessions_count": value}).encode()


def everything_shown_by(error: BaseException) -> str:
    """All that a log, a screen or a debugger may show of an error, including its hidden causes."""
    seen: BaseException | None = error
    shown = ["".join(traceback.format_exception(error))]
    while seen is not None:
        shown += [str(seen), repr(seen), repr(seen.args), repr(getattr(seen, "__notes__", None))]
        seen = seen.__cause__
    return "\n".join(shown)


def page(*items: object, has_more: object = False) -> bytes:
    return json.dumps({"items": items, "has_more": has_more}).encode()


def item(org_id: object = "org-1", org_name: object = "One", created_at: object = None) -> dict[str, object]:
    return {"org_id": org_id, "org_name": org_name, "created_at": created_at}
