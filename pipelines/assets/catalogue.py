"""What the Dagster catalogue says of an asset, taken from its table."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pipelines.loading.listing import LIST_IS_WHOLE
from warehouse.dimensions import Dimension

GROUP = "devin_sessions"
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # for the names of types, which DuckDB knows too
OWNERS = ["team:data-platform"]


def table_asset(table: sa.Table, *kinds: str, **options: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dg.asset` for the function that fills `table`; name, description and column schema are the table's."""
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
        name=table.name,
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


def listed_asset(dimension: Dimension) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """The asset of those who are counted, with the check that the source's list does not contradict itself."""
    name = dimension.listed.name
    whole = dg.AssetCheckSpec(
        LIST_IS_WHOLE, asset=name, description=f"The source's list of {name} agrees with its own total, each once."
    )
    return table_asset(dimension.listed, "python", "api", check_specs=[whole])
