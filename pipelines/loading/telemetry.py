"""The numbers of a load as OpenTelemetry metrics, sent to a collector over OTLP/HTTP. The extra `otel` brings the SDK.

The SDK takes endpoint, headers, certificates, resource and temporality from its standard variables by itself.
"""

import math
from dataclasses import asdict
from typing import Any

from pipelines.loading.load_metrics import Numbers

SERVICE = "devin-session-metrics"
SECONDS_TO_SEND = 3.0
# Those that OpenTelemetry's conventions give for the durations of HTTP requests.
BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


def send(numbers: Numbers, counted: str) -> str:
    """Send them in one request, `counted` being an attribute of each. Returns what went wrong, or nothing.

    Raises nothing and waits for the collector SECONDS_TO_SEND at most: a load is as good without its metrics. Each
    load is a series of its own that starts at zero.
    """
    try:
        return _send(numbers, counted)
    except ImportError as error:
        return f"No metrics are sent, because {error.name} is not installed: pip install '.[otel]'"
    except Exception as error:
        return f"No metrics were sent: {error}"


def _send(numbers: Numbers, counted: str) -> str:
    # Here, because most have no use for the SDK.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    class Exporter(OTLPMetricExporter):
        has_failed = False

        def export(self, *args: Any, **options: Any) -> MetricExportResult:
            result = super().export(*args, **options)
            self.has_failed = self.has_failed or result is not MetricExportResult.SUCCESS
            return result

    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
    exporter = Exporter(timeout=SECONDS_TO_SEND)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)  # never but when it is told to
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    try:
        _record(numbers, counted, provider.get_meter(SERVICE))
        provider.force_flush()
    finally:
        provider.shutdown()
    return "No metrics were sent: OTEL_EXPORTER_OTLP_ENDPOINT does not take them." if exporter.has_failed else ""


def _record(numbers: Numbers, counted: str, meter: Any) -> None:
    of = {"counted": counted}

    def count(name: str, unit: str, description: str, number: float, **attributes: str) -> None:
        meter.create_counter(f"devin.sessions.{name}", unit, description).add(number, of | attributes)

    for outcome, number in numbers.outcomes.items():
        count("calls", "{call}", "Requests to the source, by status or by why there was none.", number, outcome=outcome)
    count("retries", "{call}", "Requests that were a second or later try.", numbers.retries)
    count("limit.wait", "s", "Time for which a rate limit held questions back.", numbers.waited_seconds)
    for how, number in asdict(numbers.cells).items():
        count("cells", "{cell}", "Counts that were stored or confirmed, by how they came to be known.", number, how=how)
    for change, number in asdict(numbers.changes).items():
        count("rows", "{row}", "Rows of counts, by what the load did to them.", number, change=change)
    count("days", "{day}", "Days that were stored whole.", numbers.days)
    count("counted", "{session}", "Sessions of those days, by the source's own total.", numbers.sessions)
    # Below zero where the source contradicts itself, which a counter would drop.
    meter.create_up_down_counter(
        "devin.sessions.unattributed", "{session}", "Of these, sessions that belong to nobody counted."
    ).add(numbers.unattributed, of)
    durations = meter.create_histogram(
        "devin.sessions.call.duration",
        "s",
        "From a request to its answer.",
        explicit_bucket_boundaries_advisory=BOUNDARIES,
    )
    for seconds in numbers.latencies:
        durations.record(seconds, of)
    meter.create_histogram("devin.sessions.load.duration", "s", "From the first question to the last row.").record(
        numbers.seconds, of
    )
