"""The Dagster UI gives neither the key nor the password to anyone, and pages of other sites cannot reach it."""

import http.server
import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page

from pipelines.command import exit_codes
from pipelines.command.recorded_runs import Run
from pipelines.command.webserver import what_goes_on
from tests.support.browser import chromium
from tests.support.command import devin_sessions
from tests.support.graphql import LAUNCH, RUNS, graphql
from tests.support.ui import ui_ended_by
from tests.support.waiting import wait_until
from tests.support.world import World

DAY = "2025-04-01"
PASSWORD = "not-for-others-7d1f"


class Witness:
    """A server at another address that asks for a password as PostgreSQL does, and records everything it receives."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> "Witness":
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            # Refuses encryption, then answers the start-up message with a request for the password in clear text.
            answers = [b"N", b"R\x00\x00\x00\x08\x00\x00\x00\x03"]
            with connection:
                while received := connection.recv(65536):
                    self.received.append(received)
                    if not answers:
                        break
                    connection.sendall(answers.pop(0))


@pytest.fixture
def witness() -> Iterator[Witness]:
    with Witness() as other:
        yield other


def params(config: dict[str, Any], *, again: str = "") -> dict[str, Any]:
    """Parameters to launch a run of one day with this config, or to run `again` with it."""
    tags = {"dagster/asset_partition_range_start": DAY, "dagster/asset_partition_range_end": DAY}
    return {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "devin_session_metrics",
            "jobName": "daily_refresh",
        },
        "mode": "default",
        "runConfigData": config,
        "executionMetadata": {
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            **({"parentRunId": again, "rootRunId": again} if again else {}),
        },
    }


def launch(url: str, config: dict[str, Any], *, mutation: str = "launchRun", again: str = "") -> dict[str, Any]:
    """The response to a launch, after its run is over if there is one."""
    response: dict[str, Any] = graphql(url, LAUNCH % mutation, params=params(config, again=again))[mutation]
    if "run" in response:
        over = {"SUCCESS", "FAILURE", "CANCELED"}
        wait_until(lambda: {run["status"] for run in runs(url)} <= over, "the run is over")
    return response


def runs(url: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = graphql(url, RUNS)["runsOrError"]["results"]
    return found


def redirected(address: str) -> list[dict[str, Any]]:
    """Run configs that would send each secret to this address."""
    url = f"postgresql+psycopg://writer:***@{address}/sessions?sslmode=disable"
    return [
        {"resources": {"devin_api": {"config": {"base_url": f"http://{address}"}}}},
        {"resources": {"database": {"config": {"url": url}}}},
        {"resources": {"settings": {"config": {"devin_api_url": f"http://{address}", "warehouse_url": url}}}},
    ]


@contextmanager
def another_site() -> Iterator[str]:
    """The port of another site's empty page, which loads at `localhost` and at 127.0.0.1."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Another site</title>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield str(server.server_port)
        server.shutdown()


def fetched(page: Page, url: str, **options: object) -> int | str:
    """The status of a response that the page may see; otherwise `opaque`, or why there is none."""
    return page.evaluate(  # type: ignore[no-any-return]
        "([url, options]) => fetch(url, options).then(a => a.type === 'opaque' ? 'opaque' : a.status, e => `${e}`)",
        [url, options],
    )


@pytest.fixture
def with_password(each_world: World) -> World:
    """The warehouse URL has a password, which this server does not check."""
    url = sa.make_url(each_world.settings.warehouse_url).set(password=PASSWORD)
    each_world.configure(warehouse_url=url.render_as_string(hide_password=False))
    return each_world


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_only_the_uis_own_pages_launch_runs_and_no_run_config_sends_a_secret_elsewhere(
    with_password: World, witness: Witness
) -> None:
    world = with_password
    body = json.dumps({"query": LAUNCH % "launchRun", "variables": {"params": params({})}})
    disguised = {"mode": "no-cors", "method": "POST", "headers": {"Content-Type": "text/plain; application/json"}}
    in_address = f"?query={quote(LAUNCH % 'launchRun')}&variables={quote(json.dumps({'params': params({})}))}"
    by_name = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
    with ui_ended_by(signal.SIGQUIT) as ui:
        url = ui.url
        with another_site() as port, chromium(by_name) as browser:
            page = browser.new_page()
            for host in ("localhost", "127.0.0.1"):
                page.goto(f"http://{host}:{port}")
                assert fetched(page, f"{url}/graphql", **disguised, body=body) == "opaque", "it was sent, and answered"
                assert fetched(page, f"{url}/graphql{in_address}", mode="no-cors") == "opaque"
                assert fetched(page, f"{url}/graphql{in_address}", mode="no-cors", method="POST") == "opaque"
                assert runs(url) == []
                opened = page.evaluate(
                    "url => new Promise(done => { const socket = new WebSocket(url, 'graphql-ws');"
                    " socket.onopen = () => done(true); socket.onerror = () => done(false); })",
                    f"{url.replace('http', 'ws')}/graphql",
                )
                assert opened is False
                framed = page.evaluate(
                    "url => new Promise(done => { const frame = document.createElement('iframe');"
                    " document.body.append(frame); frame.onload = () => done(frames.length); frame.src = url; })",
                    url,
                )
                assert framed == 1
                assert "only accepts requests from its own pages" in page.frames[1].content(), "it shows the refusal"
            rebound = url.replace("127.0.0.1", "rebound.example")
            shown = page.goto(rebound)
            assert shown and shown.status == 400
            asks = {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": body}
            assert fetched(page, f"{rebound}/graphql", **asks) == 400
            assert runs(url) == []
            page.goto(url)
            assert fetched(page, "/graphql", **asks) == 200, "the same request from a page of the UI starts a run"
        wait_until(lambda: [run["status"] for run in runs(url)] in (["SUCCESS"], ["FAILURE"]), "the run is over")
        (launched,) = runs(url)
        assert launched["status"] == "SUCCESS", "a run needs no config"
        assert world.cells() == world.truth(DAY, DAY)
        requests = len(world.source.requests)
        for mutation, again in (
            ("launchRun", ""),
            ("launchPipelineExecution", ""),
            ("launchRunReexecution", launched["runId"]),
        ):
            for config in redirected(witness.address):
                response = launch(url, config, mutation=mutation, again=again)
                assert witness.received == []
                assert response["__typename"] == "RunConfigValidationInvalid"
        assert runs(url) == [launched]
        assert len(world.source.requests) == requests


def test_a_ui_that_cannot_start_says_why(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = devin_sessions("ui", "--port", port)
    assert (code, out) == (exit_codes.MISSING, ""), "no address is announced"
    assert f"The Dagster UI cannot listen on 127.0.0.1:{port}: Address already in use. Choose another" in err
    file = world.directory / "file"
    file.write_text("mine")
    world.configure(dagster_home=str(file))
    code, out, err = devin_sessions("ui")
    assert (code, out) == (exit_codes.WRONG_USE, "")
    assert f"{file} has to be a directory." in err


def test_a_ui_that_ends_says_which_runs_and_backfills_go_on() -> None:
    left = [
        Run(None, "2025-03-09…2025-03-12", "", "queued", None),
        Run(None, "2025-03-05…2025-03-08", "", "queued", None),
        Run(None, "2025-03-01…2025-03-04", "", "starting", None),
    ]
    said = what_goes_on(left, ["thebackf"])
    assert "Still running, and goes on until it ends: 2025-03-01…2025-03-04 (4 days). " in said, "its process began"
    assert "Still queued, and starts when devin-sessions ui runs again: 2025-03-05…2025-03-12 (8 days). " in said
    assert said.endswith("Not finished, and goes on when devin-sessions ui runs again: backfill thebackf.")


def test_webserver_py_was_compared_with_the_installed_version_of_dagster() -> None:
    assert version("dagster-webserver").startswith("1.13."), (
        "Compare pipelines/command/webserver.py with dagster_webserver() in dagster_webserver/cli.py, then set the new "
        "version here"
    )
