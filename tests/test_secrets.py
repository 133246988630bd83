"""The key and the password never appear in anything that is printed, logged, stored or served."""

import base64
import json
import signal
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from pipelines.command import exit_codes
from resources.sandbox.contract import SESSIONS_PATH
from tests.support.command import copy_of_the_project, devin_sessions, in_this_process, started
from tests.support.ui import ui_ended_by
from tests.support.world import World

PASSWORD = "5e884898da28"


# What is kept secret


@pytest.fixture
def with_password(each_world: World) -> World:
    """The warehouse URL has a password, which this server does not check."""
    url = sa.make_url(each_world.settings.warehouse_url).set(password=PASSWORD)
    each_world.configure(warehouse_url=url.render_as_string(hide_password=False))
    return each_world


QUESTION = {
    "query": "query Shown($of: RepositorySelector!) { assetNodes { assetKey { path } } "
    "schedulesOrError(repositorySelector: $of) "
    "{ ... on Schedules { results { name scheduleState { status } } } } "
    "allTopLevelResourceDetailsOrError(repositorySelector: $of) "
    "{ ... on ResourceDetailsList { results { name configuredValues { key value } } } } }",
    "variables": {"of": {"repositoryName": "__repository__", "repositoryLocationName": "devin_session_metrics"}},
}


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_neither_the_key_nor_the_password_is_ever_printed_stored_or_served(
    with_password: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with_password.configure(devin_report_path=str(with_password.directory / "report.html"))
    code, out, err = devin_sessions("backfill", "2025-04-01", "2025-04-02")
    assert code == 0, err
    with_password.source.fail(status=503, path=SESSIONS_PATH, times=None)
    code, more_out, more_err = devin_sessions("backfill", "2025-04-01", "2025-04-03")
    assert code == exit_codes.MISSING
    with ui_ended_by(signal.SIGINT) as ui:
        answer = httpx.post(f"{ui.url}/graphql", json=QUESTION, timeout=60).json()["data"]
    by_the_ui = "".join(ui.printed)
    for command in (["status"], ["query", "nothing"], ["query", "select 1/0"]):
        out += in_this_process(capsys, with_password.environment, *command)[1]
    printed = (out + err + more_out + more_err + by_the_ui + json.dumps(answer)).encode()
    kept = b"".join(path.read_bytes() for path in with_password.directory.rglob("*") if path.is_file())
    assert b"daily_sessions" in kept
    assert b"Devin sessions" in kept
    for secret in (PASSWORD, with_password.source.api_key):
        for form in written_forms(secret):
            assert form not in printed
            assert form not in kept

    assert "the schedule runs as long as this" in by_the_ui
    assert "Warning" not in by_the_ui
    assert len(answer["assetNodes"]) == 6
    (schedule,) = answer["schedulesOrError"]["results"]
    assert schedule == {"name": "daily_refresh_schedule", "scheduleState": {"status": "RUNNING"}}
    resources = {r["name"]: r["configuredValues"] for r in answer["allTopLevelResourceDetailsOrError"]["results"]}
    assert "database" in resources
    assert not any(resources.values()), "run config cannot change them, and the UI shows none of their values"
    assert b"BatchingSqliteEventLogStorage" in (with_password.directory / "dagster" / "dagster.yaml").read_bytes()


def written_forms(secret: str) -> set[bytes]:
    """The secret as it is, in a URL, in hexadecimal, and in base64 at any offset."""
    plain = secret.encode()
    encoded = {base64.b64encode(b"x" * n + plain)[4 if n else 0 : -4] for n in range(3)}
    return {plain, quote(secret, safe="").encode(), plain.hex().encode(), *encoded}


def test_a_key_file_that_others_can_read_is_reported(world: World) -> None:
    project = copy_of_the_project(world.directory / "project")
    file = project / ".env"
    file.write_text("DEVIN_LOG_FORMAT=text\n")
    for mode, is_exposed in ((0o640, True), (0o604, True), (0o600, False)):
        file.chmod(mode)
        _, _, err = started("--help", cwd=project)
        assert (f"chmod 600 {file}" in err) is is_exposed, "others are the group and everyone else"
