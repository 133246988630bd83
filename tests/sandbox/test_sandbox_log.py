"""The sandbox logs its requests, stops, and starts again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest

from resources.sandbox.contract import SESSIONS_PATH
from resources.sandbox.logged_request import LoggedRequest
from resources.sandbox.server import Sandbox
from tests.support.sandbox import KEY, NOW, ask, client_of


def test_the_log_has_each_request_and_its_status_but_not_the_key(sandbox: Sandbox, client: httpx.Client) -> None:
    client.get(
        f"{SESSIONS_PATH}?start_date=2025-02-03T08:00:00Z&end=2025-02-04T00:00:00&org_ids=a&org_ids=b&user_ids=u&x="
    )
    client.get(SESSIONS_PATH, params={"start_date": "yesterday"})
    client.get("/elsewhere")
    assert sandbox.requests == [
        LoggedRequest(
            path=SESSIONS_PATH,
            params=(
                ("start_date", "2025-02-03T08:00:00Z"),
                ("end", "2025-02-04T00:00:00"),
                ("org_ids", "a"),
                ("org_ids", "b"),
                ("user_ids", "u"),
                ("x", ""),
            ),
            start=datetime(2025, 2, 3, 8, tzinfo=UTC),
            end=datetime(2025, 2, 4, tzinfo=UTC),
            org_ids=("a", "b"),
            user_ids=("u",),
            status=400,
        ),
        LoggedRequest(SESSIONS_PATH, (("start_date", "yesterday"),), None, None, (), (), 422),
        LoggedRequest("/elsewhere", (), None, None, (), (), 404),
    ]
    assert KEY not in repr(sandbox.requests)


def test_a_stopped_sandbox_refuses_connections_and_starts_again_at_the_same_address() -> None:
    with Sandbox(clock=lambda: NOW) as sandbox, client_of(sandbox) as client:
        url, count = sandbox.url, ask(client, {})
        sandbox.stop()
        with pytest.raises(httpx.TransportError):
            client.get(SESSIONS_PATH)
        with pytest.raises(httpx.ConnectError):
            client.get(SESSIONS_PATH)
        sandbox.start()
        assert sandbox.url == url
        assert ask(client, {}) == count
        assert len(sandbox.requests) == 2
        with pytest.raises(RuntimeError, match="already serving"):
            sandbox.start()


def test_stopping_cuts_a_request_in_flight() -> None:
    arrived = threading.Event()

    def notice(asked: LoggedRequest) -> bool:
        arrived.set()
        return True

    with Sandbox() as sandbox, client_of(sandbox) as client, ThreadPoolExecutor(1) as pool:
        sandbox.fail(delay=30, when=notice)
        answer = pool.submit(client.get, SESSIONS_PATH, timeout=20)
        assert arrived.wait(5)
        sandbox.stop()
        with pytest.raises(httpx.TransportError):
            answer.result(timeout=5)


def test_the_url_is_unknown_before_the_start() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        _ = Sandbox().url
