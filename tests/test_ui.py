"""The Dagster UI over a loaded warehouse, in a real browser, and what `status` reports about its schedule."""

import json
import re
import signal
from typing import Any, cast

import httpx
import pytest

from tests.support.browser import chromium
from tests.support.command import devin_sessions, in_this_process
from tests.support.noon import NOON, ago
from tests.support.ui import patient_page, see_it_near, see_the_checks, see_the_description, see_the_plots, ui_ended_by
from tests.support.waiting import wait_until
from tests.support.world import World

DAYS = 4


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


def test_the_ui_shows_a_loaded_history_and_status_whether_its_schedule_runs(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.configure(devin_start_date=ago(DAYS), devin_timezone=NOON)
    code, _, err = devin_sessions("backfill", "--missing")
    assert (code, err) == (0, "")

    def shown_by_status(*options: str) -> str:
        code, shown = in_this_process(capsys, world.environment, "status", *options)
        assert code == 0, "a schedule that is not running does not affect the exit code"
        return " ".join(shown.split())

    start_it = r"Next run: .*, if the schedule is running by then\. It isn't running now: start devin-sessions ui"
    assert re.search(start_it, shown_by_status())
    with ui_ended_by(signal.SIGHUP) as ui:
        wait_until(
            lambda: json.loads(shown_by_status("--json"))["schedule"] == "running", "the daemon's first sign of life"
        )
        assert re.search(r"Next run: \d{4}-\d\d-\d\d \d\d:\d\d [-+]?\w+\.$", shown_by_status())
        with chromium() as browser:
            page = patient_page(browser, width=2400, height=1200)
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            see_it_near(page, ui.url)
            see_the_description(page, ui.url)
            see_the_plots(page, ui.url)
            see_the_checks(page, ui.url)
            assert errors == []
        switch_the_schedule_off(ui.url)
        assert json.loads(shown_by_status("--json"))["schedule"] == "switched off"
        assert "Next run: none, the schedule is switched off." in shown_by_status()
