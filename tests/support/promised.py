"""Checks what the pages promise against the sandbox that was loaded."""

import html
import re
from datetime import date, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Any

import duckdb
import httpx

from pipelines.home import PROJECT
from resources.sandbox.server import Sandbox
from tests.support.noon import ZONE
from tests.support.pages import text
from tests.support.person import Person, Running


def table(output: str) -> list[dict[str, str]]:
    """The rows of the first table in a command's output, without thousands separators."""
    lines = [re.split("[│┃]", line.strip())[1:-1] for line in output.splitlines() if line.startswith(("│", "┃"))]
    head, *rows = [[cell.strip().replace(",", "") for cell in line] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


def days(first: str, last: str) -> list[date]:
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [start + timedelta(n) for n in range((end - start).days + 1)]


def truth(source: Sandbox, day: date | str, *org_ids: str, days: int = 1, zone: tzinfo = ZONE) -> int:
    """How many sessions the sandbox has for these days of a time zone."""
    start = datetime.combine(date.fromisoformat(f"{day}"), time(), zone)
    return source.truth(start, start + timedelta(days), org_ids or None)


def check_report(report: Path, source: Sandbox, last: str, zone: tzinfo = ZONE) -> None:
    """The report lists every organization that had sessions in the last loaded week."""
    page = html.unescape(report.read_text(encoding="utf-8"))
    week = date.fromisoformat(last) - timedelta(days=6)
    names = [o.org_name for o in source.organizations if truth(source, week, o.org_id, days=7, zone=zone)]
    assert names
    assert [name for name in names if name not in page] == []


def check_loaded(snapshot: Path, source: Sandbox, first: str, last: str) -> None:
    """Exactly these days are published, with the count that the sandbox has for each organization."""
    with duckdb.connect(str(snapshot), read_only=True) as connection:
        found = connection.sql("select day, org_id, sessions_count from daily_sessions").fetchall()
    ids = [o.org_id for o in source.organizations]
    assert {(day, id_): count for day, id_, count in found} == {
        (day, id_): truth(source, day, id_) for day in days(first, last) for id_ in ids
    }


HEALTH = "{ instance { daemonHealth { allDaemonStatuses { daemonType healthy } } } }"
QUESTION = """{
    schedulesOrError(
        repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "devin_session_metrics"}
    ) { ... on Schedules { results { name scheduleState { status } } } }
    assetNodes { assetKey { path } partitionStats { numMaterialized } }
}"""


def check_ui(running: Running, url: str, loaded: int) -> None:
    """The UI is up and shows `loaded` days as loaded, the schedule is on and its daemon is healthy."""
    with httpx.Client(base_url=url, timeout=60) as client:
        running.wait_for(lambda: client.get("/server_info").is_success)

        def asked(question: str) -> Any:
            return client.post("/graphql", json={"query": question}).json()["data"]

        def is_healthy() -> bool:
            statuses = asked(HEALTH)["instance"]["daemonHealth"]["allDaemonStatuses"]
            return any(daemon["healthy"] for daemon in statuses if daemon["daemonType"] == "SCHEDULER")

        running.wait_for(is_healthy)
        data = asked(QUESTION)
    (schedule,) = data["schedulesOrError"]["results"]
    assert schedule == {"name": "daily_refresh_schedule", "scheduleState": {"status": "RUNNING"}}
    nodes = {node["assetKey"]["path"][-1]: node["partitionStats"] for node in data["assetNodes"]}
    assert nodes["daily_sessions"] == {"numMaterialized": loaded}
    assert {"weekly_sessions", "monthly_sessions", "enterprise_sessions"} <= nodes.keys()


def url_of(person: Person, page: str) -> str:
    """The address that the page gives for the UI."""
    (url,) = set(re.findall(r"http://127\.0\.0\.1:\d+", text(PROJECT / page)))
    return person.here(url)
