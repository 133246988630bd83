"""Sends the metrics of a load to an OpenTelemetry collector over OTLP/HTTP. The extra `otel` installs the SDK.

The SDK takes endpoint, headers, certificates, resource and temporality from its standard environment variables.
"""

import math
from typing import Any

from pipelines.loading.load_metrics import LoadMetrics
from warehouse.dimensions import Dimension

SERVICE = "devin-session-metrics"
SECONDS_TO_SEND = 3.0


class NotSent(Exception):
    """The collector did not get the metrics. The message says why; the load itself is not affected."""


def send(metrics: LoadMetrics, dimension: Dimension, enterprise: str) -> None:
    """Send the metrics in one request, within SECONDS_TO_SEND. Raises NotSent.

    Each has the attribute `counted`, `organizations` or `users`, and `enterprise` if that has a name. Every load is its
    own series, which starts at zero.
    """
    try:
        has_failed = _send(metrics, dimension, enterprise)
    except ImportError as error:
        raise NotSent(f"No metrics are sent, because {error.name} is not installed: pip install '.[otel]'") from error
    except Exception as error:
        raise NotSent(f"No metrics were sent: {error}") from error
    if has_failed:
        raise NotSent("No metrics were sent: the collector at OTEL_EXPORTER_OTLP_ENDPOINT did not accept them.")


def _send(metrics: LoadMetrics, dimension: Dimension, enterprise: str) -> bool:
    """Send the metrics. Returns whether the collector refused them or did not respond."""
    # Imported here, because most installations do without the SDK.
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
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)  # only when it is flushed
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    try:
        _record(metrics, dimension, enterprise, provider.get_meter(SERVICE))
        provider.force_flush()
    finally:
        provider.shutdown()
    return exporter.has_failed


def _record(metrics: LoadMetrics, dimension: Dimension, enterprise: str, meter: Any) -> None:
    whose = {"counted": dimension.plural} | ({"enterprise": enterprise} if enterprise else {})
    for instrument, values in metrics.measurements():
        name = f"devin.sessions.{instrument.name}"
        about = name, instrument.unit, instrument.description
        if instrument.kind == "histogram":
            record = meter.create_histogram(*about, explicit_bucket_boundaries_advisory=instrument.boundaries).record
        else:
            record = getattr(meter, f"create_{instrument.kind}")(*about).add
        for value, attributes in values:
            record(value, {**whose, **attributes})
