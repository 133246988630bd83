"""Records in Dagster what a load brought: the stored days of a failing run, and the numbers of any run."""

import dagster as dg

from pipelines.loading import telemetry
from pipelines.loading.load_metrics import LoadMetrics
from pipelines.loading.load_result import LoadResult
from pipelines.settings import Settings
from resources.event_batches import materialize_in_one_batch
from warehouse.dimensions import Dimension


def record_stored_days(context: dg.AssetExecutionContext, result: LoadResult) -> None:
    """Materialize the stored days of a failing run, so that Dagster shows exactly the missing ones as missing."""
    materialize_in_one_batch(
        context,
        [
            dg.AssetMaterialization(
                context.asset_key, partition=day.isoformat(), metadata=dict(metrics.as_fields_of_a_day())
            )
            for day, metrics in result.stored.items()
        ],
    )


def record_metrics(
    context: dg.AssetExecutionContext,
    settings: Settings,
    dimension: Dimension,
    metrics: LoadMetrics,
    result: LoadResult,
) -> None:
    """Show the numbers of the load on the asset in Dagster, in one event; send them to the collector, if any."""
    if not metrics.calls:
        return
    context.log_event(dg.AssetObservation(context.asset_key, metadata=metrics.as_fields()))
    if settings.otel_exporter_otlp_endpoint:
        try:
            telemetry.send(metrics, dimension, settings.devin_enterprise)
        except telemetry.NotSent as error:
            context.log.warning(str(error))
            result.warnings.append(str(error))
