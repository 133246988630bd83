"""Measures requests per second: of the stand-in alone, and of the client beside a plain one."""

import statistics
import tempfile
from pathlib import Path

from tests.bench.processes import Failed, end_of_output, started
from tests.bench.sizes import Sizes
from tests.bench.source import Source
from tests.bench.table import Row, spread


def source(sizes: Sizes) -> list[Row]:
    """The stand-in itself, over bare sockets: it must not be what limits the other rows."""
    requests = sizes.requests * 5
    wall, of_core = [], []
    with Source(sizes.world((20, 365)), latency=0) as it:
        for _ in range(sizes.times):
            wall.append(_request_rate("bare", it, 64, requests)[0])
            of_core.append(requests / it.counters().cpu_seconds)
    return [
        Row(
            "the stand-in alone, requests per second of one core",
            "≥ 3,000",
            f"{max(of_core):,.0f}",
            max(of_core) >= 3000,
            [spread(of_core, ",.0f"), f"64 bare connections saw {spread(wall, ',.0f')} requests/s"],
        )
    ]


def client(sizes: Sizes) -> list[Row]:
    """The two clients in turn, without latency, since waiting would hide the CPU that the faster one saves."""
    rates: dict[str, list[float]] = {"devin": [], "httpx": []}
    cpu: dict[str, list[float]] = {"devin": [], "httpx": []}
    with Source(sizes.world((20, 365)), latency=0) as it:
        for _ in range(sizes.times):
            for kind in rates:
                rate, spent = _request_rate(kind, it, 64, sizes.requests)
                rates[kind].append(rate)
                cpu[kind].append(spent)
    ratio = statistics.median(rates["devin"]) / statistics.median(rates["httpx"])
    return [
        Row(
            "requests/s of DevinClient ÷ of a plain httpx.AsyncClient, 64 connections, no latency (CPU alone)",
            "≥ 4.0",
            f"{ratio:.1f}",
            ratio >= 4,
            [
                f"{name}: {spread(rates[kind], ',.0f')} requests/s; {statistics.median(cpu[kind]):.2f} ms CPU each"
                for kind, name in (("devin", "DevinClient"), ("httpx", "httpx"))
            ],
        )
    ]


def _request_rate(kind: str, source: Source, connections: int, requests: int) -> tuple[float, float]:
    """Requests per second as seen by the source, and the client's CPU time per request in ms."""
    source.reset()
    arguments = ["-m", "tests.bench.client", kind, source.url, str(connections), str(requests), *source.world.org_ids]
    with tempfile.TemporaryDirectory() as name:
        with started(arguments, Path(name), source.url) as process:
            process.wait()
        if process.returncode:
            raise Failed(f"exit code {process.returncode}: {end_of_output(Path(name))}")
        cpu_seconds = float(end_of_output(Path(name)))
    seen = source.counters()
    if seen.session_calls != requests:
        raise Failed(f"{seen.session_calls} requests arrived instead of {requests}")
    return requests / seen.seconds, cpu_seconds / requests * 1000
