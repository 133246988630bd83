"""A stand-in for the Devin Enterprise API v2 that uses very little CPU, so that a benchmark measures the client.

It accepts whole UTC days only, and is strict where the real API would let a benchmark's mistake pass as a number.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

from tests.bench.world import World

PROJECT = Path(__file__).resolve().parents[2]
SESSIONS_PATH = "/v2/enterprise/metrics/sessions"
ORGANIZATIONS_PATH = "/v2/enterprise/organizations"
LIST_PATH = "/v2/enterprise/sessions"
COUNTERS_PATH, RESET_PATH, AFTER_PATH = "/bench/counters", "/bench/reset", "/bench/after"
KEY = "apk_user_bench"

# nginx's default limit; a filter of a thousand organizations would not reach a real API.
LONGEST_REQUEST_LINE = 8192


@dataclass
class Counters:
    """What the stand-in has seen since it started or was reset. Times are from the machine's monotonic clock."""

    session_calls: int = 0
    organization_calls: int = 0
    list_calls: int = 0
    """Calls for pages of the list of sessions."""
    refused: int = 0
    """Calls of all kinds that got a 429."""
    fullest_minute: int = 0
    """The most calls of all kinds that arrived within 60 seconds."""
    repeated: int = 0
    """Successful session calls with the same window and filter as an earlier one."""
    first_at: float = 0.0
    """When the first session call or list call arrived."""
    last_at: float = 0.0
    """When the last response was sent."""
    connections: int = 0
    """Connections opened, including the benchmark's own."""
    cpu_seconds: float = 0.0
    """CPU time of the stand-in itself."""

    @property
    def calls(self) -> int:
        """All calls, including refused ones."""
        return self.session_calls + self.organization_calls + self.list_calls

    @property
    def seconds(self) -> float:
        """From the first session call or list call to the last response."""
        return self.last_at - self.first_at


class Source:
    """The stand-in in a separate process: `with Source(World(60, 365)) as it: it.url`.

    `latency`, in seconds, delays every response. `limit` is a sliding window: a call gets a 429 with `Retry-After: 1`
    if that many were let through in the second before it; refused calls don't count. Only if it `lists_sessions` does
    it have the list of them, which gets a 404 otherwise.
    """

    def __init__(
        self, world: World, *, latency: float = 0.05, limit: int | None = None, lists_sessions: bool = False
    ) -> None:
        self.world = world
        self.lists_sessions = lists_sessions
        self.latency = latency
        self.limit = limit

    def __enter__(self) -> Self:
        options = json.dumps(
            {
                "world": asdict(self.world),
                "latency": self.latency,
                "limit": self.limit,
                "lists_sessions": self.lists_sessions,
            }
        )
        # The process ends when its standard input does, so that it never outlives this one.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.source_server", options],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError("The stand-in did not start; its error is above.")
        self.port = int(line)
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    @property
    def url(self) -> str:
        """The base URL of the stand-in."""
        return f"http://127.0.0.1:{self.port}"

    def counters(self) -> Counters:
        """What the stand-in has seen so far."""
        return Counters(**self._get(COUNTERS_PATH))

    def reset(self) -> None:
        """Set the counters to zero, and forget earlier requests."""
        self._get(RESET_PATH)

    def wait_for_calls(self, calls: int, timeout: float) -> bool:
        """Return True once there have been this many calls, or False after `timeout` seconds."""
        try:
            self._get(f"{AFTER_PATH}?calls={calls}", timeout)
        except TimeoutError:
            return False
        return True

    def _get(self, target: str, timeout: float = 60.0) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", target)
            body: dict[str, Any] = json.loads(connection.getresponse().read())
            return body
        finally:
            connection.close()
