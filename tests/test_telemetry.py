"""Metrics of real loads, sent to an OTLP/HTTP collector on this machine."""

import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from pipelines.loading.answers import Cells
from pipelines.loading.load_metrics import LoadMetrics
from pipelines.loading.telemetry import SECONDS_TO_SEND, NotSent, send
from tests.support.numbers import in_dagster, lines_of
from tests.support.world import World
from warehouse.dimensions import ORGANIZATIONS

Points = dict[str, list[tuple[dict[str, str], Any]]]


class Collector(ThreadingHTTPServer):
    """Keeps the requests that it gets and responds with `status`, or not at all while it `hangs`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.status = 200
        self.hangs = False
        self.hung_for: queue.Queue[float] = queue.Queue()
        self.received: list[ExportMetricsServiceRequest] = []
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def points(self) -> Points:
        """The data points of the only request, by metric: attributes and value, or the histogram's point."""
        (request,) = self.received
        found: Points = {}
        for metric in request.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.sum.data_points or metric.histogram.data_points:
                attributes = {a.key: a.value.string_value for a in point.attributes}
                assert attributes.pop("counted") == "organizations"
                value = point if metric.histogram.data_points else point.as_int or point.as_double
                found.setdefault(metric.name, []).append((attributes, value))
        return found

    def resource(self) -> dict[str, str]:
        """The attributes of the only request's resource."""
        (request,) = self.received
        return {a.key: a.value.string_value for a in request.resource_metrics[0].resource.attributes}


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/metrics"
        self.server.headers = dict(self.headers)
        self.server.received.append(ExportMetricsServiceRequest.FromString(body))
        if self.server.hangs:
            since = time.monotonic()
            self.connection.settimeout(30)
            self.connection.recv(1)  # returns nothing once the other side closes
            self.server.hung_for.put(time.monotonic() - since)
            return
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing; by default the server writes to the screen."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def observed(world: World, collector: Collector) -> World:
    """A world whose loads send their metrics to the collector."""
    world.configure(otel_exporter_otlp_endpoint=collector.url)
    return world


def test_a_collector_gets_the_numbers_of_a_load_and_not_the_key(observed: World, collector: Collector) -> None:
    world = observed
    world.configure(devin_max_tries="3", otel_exporter_otlp_headers="x-tenant=mine")
    world.source.fail(retry_after="0", when=lambda asked: asked.start is not None, times=2)
    world.source.add_sessions("org-hidden", world.days("2025-04-02", "2025-04-02")[0].start, count=4)
    assert world.load("2025-04-01", "2025-04-04").success
    assert world.progress.result.warnings == []
    (numbers,) = in_dagster(world)
    points = collector.points()
    single = {name: found[0][1] for name, found in points.items() if len(found) == 1}
    assert single["devin.sessions.retries"] == numbers["retries"] == 2
    assert single["devin.sessions.days"] == 4
    assert single["devin.sessions.counted"] == numbers["sessions"]
    assert single["devin.sessions.unattributed"] == 4
    assert single["devin.sessions.limit.wait"] == pytest.approx(numbers["waited_seconds"], abs=0.001)
    assert numbers["waited_seconds"] > 0.05
    split = {
        name: {next(iter(a.values())): value for a, value in found} for name, found in points.items() if found[0][0]
    }
    assert split == {
        "devin.sessions.calls": numbers["calls_by_outcome"],
        "devin.sessions.cells": {f.name: numbers[f"cells_{f.name}"] for f in fields(Cells)},
        "devin.sessions.rows": {how: numbers[f"rows_{how}"] for how in ("inserted", "changed", "unchanged")},
    }
    assert {name: set(points[name][0][0]) for name in split} == {
        "devin.sessions.calls": {"outcome"},
        "devin.sessions.cells": {"how"},
        "devin.sessions.rows": {"change"},
    }
    durations = single["devin.sessions.call.duration"]
    assert durations.count == numbers["calls"] == sum(durations.bucket_counts)
    assert 0 < durations.min <= numbers["latency_median_ms"] / 1000 <= durations.max < 10
    assert single["devin.sessions.load.duration"].sum == pytest.approx(numbers["seconds"], abs=0.001)
    assert collector.headers["x-tenant"] == "mine"
    assert world.source.api_key not in str(collector.received) + str(collector.headers)
    assert (durations.explicit_bounds[0], durations.explicit_bounds[-1]) == (0.005, 10), "in seconds"
    units = {m.name: m.unit for m in collector.received[0].resource_metrics[0].scope_metrics[0].metrics}
    assert {name for name, unit in units.items() if unit == "s"} == {
        "devin.sessions.limit.wait",
        "devin.sessions.call.duration",
        "devin.sessions.load.duration",
    }


def test_loads_per_user_and_per_organization_are_distinguished(observed: World, collector: Collector) -> None:
    observed.configure(devin_user_ids=observed.source.members[0].user_id)
    assert observed.load("2025-04-01", "2025-04-01").success
    counted = {
        attribute.value.string_value
        for request in collector.received
        for metric in request.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.sum.data_points or metric.histogram.data_points
        for attribute in point.attributes
        if attribute.key == "counted"
    }
    assert counted == {"organizations", "users"}


@pytest.mark.parametrize(
    ("variables", "name"),
    [({}, "devin-session-metrics"), ({"OTEL_SERVICE_NAME": "nightly"}, "nightly")],
)
def test_the_service_has_a_name(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    send(LoadMetrics(days=1), ORGANIZATIONS, "")
    assert collector.resource()["service.name"] == name


def test_the_metrics_of_each_enterprise_are_told_apart(collector: Collector) -> None:
    send(LoadMetrics(days=1), ORGANIZATIONS, "acme")
    points = [point for found in collector.points().values() for point in found]
    assert points
    assert all(attributes["enterprise"] == "acme" for attributes, _ in points)


def test_unattributed_sessions_are_sent_as_a_negative_number_if_counts_exceed_the_total(collector: Collector) -> None:
    send(LoadMetrics(days=1, unattributed=-7), ORGANIZATIONS, "")
    assert collector.points()["devin.sessions.unattributed"] == [({}, -7)]


def test_a_collector_that_is_down_refuses_or_hangs_costs_seconds_and_an_error_that_says_so(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_sent = r"^No metrics were sent: the collector at OTEL_EXPORTER_OTLP_ENDPOINT did not accept them\.$"
    collector.status = 400
    with pytest.raises(NotSent, match=not_sent):
        send(LoadMetrics(days=1), ORGANIZATIONS, "")
    collector.hangs = True
    with pytest.raises(NotSent, match=not_sent):
        send(LoadMetrics(days=1), ORGANIZATIONS, "")
    assert collector.hung_for.get(timeout=60) < SECONDS_TO_SEND + 1.5
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NotSent, match=not_sent):
        send(LoadMetrics(days=1), ORGANIZATIONS, "")


def test_a_backfill_reports_that_metrics_were_not_sent_and_continues(observed: World, collector: Collector) -> None:
    collector.status = 400
    observed.configure(devin_log_format="json")
    code, out, err = lines_of("backfill", "2025-04-01", "2025-04-02")
    assert (code, [line["event"] for line in out[-3:]]) == (0, ["loaded", "check_warned", "published"])
    assert (err[0]["event"], err[0]["level"]) == ("metrics_not_sent", "error")
    assert (
        err[0]["message"] == "No metrics were sent: the collector at OTEL_EXPORTER_OTLP_ENDPOINT did not accept them."
    )


def test_without_the_extra_a_warning_says_what_to_install(observed: World, collector: Collector) -> None:
    observed.environment.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    result = observed.load("2025-04-01", "2025-04-01")
    assert result.success
    assert observed.progress.result.warnings == [
        "No metrics are sent, because opentelemetry.sdk.metrics is not installed: pip install '.[otel]'"
    ]
    logged = [e.user_message for e in observed.instance.all_logs(result.run_id) if e.level == 30]
    assert observed.progress.result.warnings[0] in logged
    assert collector.received == []


def test_without_an_endpoint_nothing_is_sent(observed: World, collector: Collector) -> None:
    observed.configure(otel_exporter_otlp_endpoint="")
    assert observed.load("2025-04-01", "2025-04-01").success
    assert (collector.received, observed.progress.result.warnings) == ([], [])
