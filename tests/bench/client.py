"""Sends the same requests with one kind of client, to compare clients.

    python -m tests.bench.client KIND URL CONNECTIONS REQUESTS ORG_ID…

Prints the CPU seconds spent. The stand-in measures the time.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx

from tests.bench.source import SESSIONS_PATH

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
Ask = Callable[[datetime, str], Awaitable[int]]


@asynccontextmanager
async def devin_client(url: str, connections: int) -> AsyncIterator[Ask]:
    """This project's client."""
    # Here, so that the other kinds don't pay for these imports.
    from resources.calls import Calls
    from resources.devin_api import DevinAPI

    async with DevinAPI(base_url=url, max_connections=connections).connect(Calls()) as client:

        async def ask(day: datetime, org_id: str) -> int:
            return await client.count(day, day + timedelta(1), org_ids=[org_id])

        yield ask


@asynccontextmanager
async def plain_httpx(url: str, connections: int) -> AsyncIterator[Ask]:
    """httpx, used as in its documentation."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    headers = {"Authorization": f"Bearer {os.environ['DEVIN_API_KEY']}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=30) as client:

        async def ask(day: datetime, org_id: str) -> int:
            response = await client.get(SESSIONS_PATH, params=_params(day, org_id))
            response.raise_for_status()
            count: int = response.json()["sessions_count"]
            return count

        yield ask


class _RawConnection(asyncio.Protocol):
    """A bare connection that sends one request at a time and parses only the end of the response."""

    def __init__(self) -> None:
        self._answered: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._answered is not None and data.startswith(b"HTTP/1.1 200 ") and data.endswith(b"}")
        self._answered.set_result(int(data[data.rindex(b":") + 1 : -1]))

    def ask(self, request: bytes) -> asyncio.Future[int]:
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answered


@asynccontextmanager
async def bare_sockets(url: str, connections: int) -> AsyncIterator[Ask]:
    """No client at all, to see what the stand-in can do."""
    host = httpx.URL(url)
    loop = asyncio.get_running_loop()
    free: list[_RawConnection] = []
    for _ in range(connections):
        free.append((await loop.create_connection(_RawConnection, host.host, host.port or 80))[1])

    async def ask(day: datetime, org_id: str) -> int:
        connection = free.pop()
        query = "&".join(f"{name}={value}" for name, value in _params(day, org_id).items())
        count = await connection.ask(
            f"GET {SESSIONS_PATH}?{query} HTTP/1.1\r\nHost: {host.host}\r\n"
            f"Authorization: Bearer {os.environ['DEVIN_API_KEY']}\r\n\r\n".encode()
        )
        free.append(connection)
        return count

    yield ask
    for connection in free:
        connection.transport.close()


def _params(day: datetime, org_id: str) -> dict[str, str]:
    end = day + timedelta(1)
    return {"start_date": f"{day:%Y-%m-%dT%H:%M:%SZ}", "end_date": f"{end:%Y-%m-%dT%H:%M:%SZ}", "org_ids": org_id}


KINDS = {"devin": devin_client, "httpx": plain_httpx, "bare": bare_sockets}


async def _send_all(kind: str, url: str, connections: int, requests: int, org_ids: list[str]) -> float:
    requests_to_send = iter([(FIRST + timedelta(n % 365), org_ids[n // 365 % len(org_ids)]) for n in range(requests)])
    async with KINDS[kind](url, connections) as ask:

        async def work() -> None:
            for day, org_id in requests_to_send:
                await ask(day, org_id)

        before = time.process_time()
        await asyncio.gather(*(work() for _ in range(connections)))
        return time.process_time() - before


if __name__ == "__main__":
    _kind, _url, _connections, _requests, *_org_ids = sys.argv[1:]
    sys.stdout.write(f"{asyncio.run(_send_all(_kind, _url, int(_connections), int(_requests), _org_ids))}\n")
