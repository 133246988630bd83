"""The baseline: an asyncio and httpx script that loads the same tables and takes an afternoon to write.

python -m tests.bench.baseline URL FIRST LAST DATABASE [--list]

With `--list` it counts the sessions that the API lists, and proves nothing.
"""

import asyncio
import os
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import httpx
import pyarrow as pa
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

CONNECTIONS = 16
PAGE = 200


@retry(
    retry=retry_if_exception_type(httpx.HTTPError),
    wait=wait_random_exponential(0.5, max=30),
    stop=stop_after_attempt(5),
    reraise=True,
)
async def get(client: httpx.AsyncClient, path: str, params: dict[str, str | int]) -> dict[str, Any]:
    response = await client.get(path, params=params)
    response.raise_for_status()
    body: dict[str, Any] = response.json()
    return body


async def list_organizations(client: httpx.AsyncClient) -> list[str]:
    org_ids: list[str] = []
    while True:
        page = await get(client, "/v2/enterprise/organizations", {"skip": len(org_ids), "limit": 200})
        org_ids += [item["org_id"] for item in page["items"]]
        if not page["has_more"]:
            return org_ids


async def count(client: httpx.AsyncClient, semaphore: asyncio.Semaphore, day: date, org_id: str | None) -> int:
    params: dict[str, str | int] = {
        "start_date": f"{day}T00:00:00Z",
        "end_date": f"{day + timedelta(days=1)}T00:00:00Z",
    }
    if org_id:
        params["org_ids"] = org_id
    async with semaphore:
        body = await get(client, "/v2/enterprise/metrics/sessions", params)
    sessions: int = body["sessions_count"]
    return sessions


async def collect(url: str, days: list[date]) -> tuple[list[str], list[int], list[list[int]]]:
    headers = {"Authorization": f"Bearer {os.environ['DEVIN_API_KEY']}"}
    semaphore = asyncio.Semaphore(CONNECTIONS)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        org_ids = await list_organizations(client)
        totals = await asyncio.gather(*(count(client, semaphore, day, None) for day in days))
        cells = await asyncio.gather(*(count(client, semaphore, day, org_id) for day in days for org_id in org_ids))
    by_day = [cells[n * len(org_ids) : (n + 1) * len(org_ids)] for n in range(len(days))]
    return org_ids, totals, by_day


async def collect_from_list(url: str, days: list[date]) -> tuple[list[str], list[int], list[list[int]]]:
    headers = {"Authorization": f"Bearer {os.environ['DEVIN_API_KEY']}"}
    window = {"created_date_from": f"{days[0]}T00:00:00Z", "created_date_to": f"{days[-1] + timedelta(1)}T00:00:00Z"}
    semaphore = asyncio.Semaphore(CONNECTIONS)

    async def page(client: httpx.AsyncClient, skip: int) -> dict[str, Any]:
        async with semaphore:
            return await get(client, "/v2/enterprise/sessions", {**window, "skip": skip, "limit": PAGE})

    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        org_ids = await list_organizations(client)
        first = await page(client, 0)
        following = await asyncio.gather(*(page(client, skip) for skip in range(PAGE, first["total"], PAGE)))
    sessions = {item["session_id"]: item for of_page in (first, *following) for item in of_page["items"]}
    cells = Counter((item["created_at"][:10], item["org_id"]) for item in sessions.values())
    by_day = [[cells[str(day), org_id] for org_id in org_ids] for day in days]
    return org_ids, [sum(of_day) for of_day in by_day], by_day


def main() -> None:
    url, first_text, last_text, database, *options = sys.argv[1:]
    first, last = date.fromisoformat(first_text), date.fromisoformat(last_text)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    way = collect_from_list if options == ["--list"] else collect
    org_ids, totals, by_day = asyncio.run(way(url, days))
    now = datetime.now(UTC)
    new_cells = pa.Table.from_pylist(
        [
            {"day": day, "org_id": org_id, "sessions_count": sessions, "loaded_at": now}
            for day, of_day in zip(days, by_day, strict=True)
            for org_id, sessions in zip(org_ids, of_day, strict=True)
        ]
    )
    new_totals = pa.Table.from_pylist(
        [
            {"day": day, "sessions_count": total, "orgs_sessions_count": sum(of_day), "loaded_at": now}
            for day, total, of_day in zip(days, totals, by_day, strict=True)
        ]
    )
    with duckdb.connect(database) as connection:
        connection.register("new_cells", new_cells)
        connection.register("new_totals", new_totals)
        connection.execute(
            "create table if not exists daily_sessions (day date, org_id text, sessions_count bigint, "
            "loaded_at timestamptz, primary key (day, org_id))"
        )
        connection.execute(
            "create table if not exists daily_totals (day date primary key, sessions_count bigint, "
            "orgs_sessions_count bigint, loaded_at timestamptz)"
        )
        connection.begin()
        connection.execute("insert or replace into daily_sessions select * from new_cells")
        connection.execute("insert or replace into daily_totals select * from new_totals")
        connection.commit()


if __name__ == "__main__":
    main()
