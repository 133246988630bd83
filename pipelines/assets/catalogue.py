"""What the Dagster catalogue shows about an asset, taken from its table."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pipelines import names
from pipelines.asset_keys import asset_key
from pipelines.loading.counted_ids import LIST_IS_WHOLE
from pipelines.settings import Settings
from warehouse.dimensions import Dimension

GROUP = "devin_sessions"
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # for type names, which DuckDB shares
OWNERS = ["team:data-platform"]


def table_asset(
    settings: Settings, table: sa.Table, *kinds: str, **options: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dg.asset` for the function that fills `table`, with the table's name, description and column schema."""
    columns = [
        dg.TableColumn(
            name=column.name,
            type=column.type.compile(dialect=_DIALECT).lower(),
            description=column.comment,
            constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
        )
        for column in table.columns
    ]
    decorate: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        key=asset_key(settings, table.name),
        description=table.comment,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"sql", *kinds},
        metadata={
            "dagster/column_schema": dg.TableSchema(columns=columns),
            "dagster/table_name": table.name,
        },
        **options,
    )
    return decorate


def listed_asset(settings: Settings, dimension: Dimension) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """The asset that lists which ids are counted, with the check that the API's list does not contradict itself."""
    name = dimension.listed.name
    whole = dg.AssetCheckSpec(
        LIST_IS_WHOLE,
        asset=asset_key(settings, name),
        description=f"The API's list of {name} agrees with its own total and has each of them once.",
    )
    return table_asset(settings, dimension.listed, "python", "api", check_specs=[whole], pool=names.pool(settings))


def counts_asset(
    settings: Settings, dimension: Dimension, partitions: dg.DailyPartitionsDefinition
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """The asset of the counts on these days. One run loads any DEVIN_DAYS_PER_RUN of them, each with its own window."""
    return table_asset(
        settings,
        dimension.cells,
        "python",
        "api",
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.multi_run(settings.devin_days_per_run),
        deps=[asset_key(settings, dimension.listed.name)],
        pool=names.pool(settings),
    )
