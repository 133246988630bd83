"""The Dagster UI over a loaded warehouse, in a real browser, and what `status` reports about its schedule."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import pytest

from tests.support.browser import chromium
from tests.support.command import devin_sessions, in_this_process
from tests.support.ui import dagster_ui, patient_page, see_it_near, see_the_checks, see_the_description, see_the_plots
from tests.support.waiting import wait_until
from tests.support.world import World

DAYS = 4


@pytest.fixture
def loaded(world: World) -> World:
    """A history of a few days up to yesterday, all loaded."""
    today = datetime.now(UTC).date()
    world.configure(devin_start_date=f"{today - timedelta(days=DAYS)}")
    code, _, err = devin_sessions("backfill", "--missing")
    assert (code, err) == (0, "")
    return world


def switch_the_schedule_off(url: str) -> None:
    """Does what the schedule's switch in the UI does."""

    def ask(query: str, **variables: object) -> dict[str, Any]:
        answer = httpx.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer
        return cast("dict[str, Any]", answer["data"])

    of = {"repositoryName": "__repository__", "repositoryLocationName": "devin_session_metrics"}
    found = ask(
        "query Shown($of: RepositorySelector!) { schedulesOrError(repositorySelector: $of) "
        "{ ... on Schedules { results { scheduleState { id } } } } }",
        of=of,
    )
    (schedule,) = found["schedulesOrError"]["results"]
    ask(
        "mutation Off($id: String!) { stopRunningSchedule(id: $id) { __typename } }", id=schedule["scheduleState"]["id"]
    )


def test_the_ui_shows_the_graph_with_descriptions_plots_by_day_and_green_checks(loaded: World) -> None:
    assert loaded.settings.published_snapshot
    with dagster_ui({}) as url, chromium() as browser:
        page = patient_page(browser, width=2400, height=1200)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        see_it_near(page, url)
        see_the_description(page, url)
        see_the_plots(page, url)
        see_the_checks(page, url)
        assert errors == []


def test_status_says_whether_the_schedule_runs(loaded: World, capsys: pytest.CaptureFixture[str]) -> None:
    def shown_by_status(*options: str) -> str:
        code, shown = in_this_process(capsys, loaded.environment, "status", *options)
        assert code == 0, "a schedule that is not running does not affect the exit code"
        return " ".join(shown.split())

    start_it = r"Next run: .*, if the schedule is running by then\. It isn't running now: start devin-sessions ui"
    assert re.search(start_it, shown_by_status())
    with dagster_ui({}) as url:
        wait_until(
            lambda: json.loads(shown_by_status("--json"))["schedule"] == "running", "the daemon's first sign of life"
        )
        assert re.search(r"Next run: \d{4}-\d\d-\d\d \d\d:\d\d UTC\.$", shown_by_status())
        switch_the_schedule_off(url)
        assert json.loads(shown_by_status("--json"))["schedule"] == "switched off"
        assert "Next run: none, the schedule is switched off." in shown_by_status()
