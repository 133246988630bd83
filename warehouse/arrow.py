"""The rows of a table as Arrow, with the same columns, types and order from DuckDB and from PostgreSQL."""

from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Date, DateTime, Double, Integer, Text

from warehouse import tables
from warehouse.periods import month_of

_BATCH_ROWS = 10_000  # from PostgreSQL, so that Python's objects for no more rows exist at a time
_TYPES: dict[type[sa.types.TypeEngine[Any]], pa.DataType] = {
    BigInteger: pa.int64(),
    Boolean: pa.bool_(),
    Date: pa.date32(),
    DateTime: pa.timestamp("us", tz="UTC"),
    Double: pa.float64(),
    Integer: pa.int32(),
    Text: pa.string(),
}


def rows_of(connection: sa.Connection, table: sa.Table, month: date | None = None) -> pa.Table:
    """The rows of a table, or those of the month that begins on `month`, ordered by its key or else by all columns."""
    if connection.dialect.name == "duckdb":
        return _from_duckdb(connection, table, month).to_arrow_table()
    chosen = sa.select(table).order_by(*(_in_binary_order(table.c[name]) for name in _order(table)))
    if month:
        chosen = chosen.where(table.c.day.between(month, month_of(month)[1]))
    schema = pa.schema([(column.name, _TYPES[type(column.type)]) for column in table.columns])
    found = connection.execution_options(stream_results=True, yield_per=_BATCH_ROWS).execute(chosen)
    batches = (pa.RecordBatch.from_arrays(_arrays(rows, schema), schema=schema) for rows in found.partitions())
    return pa.Table.from_batches(batches, schema)


def _arrays(rows: Any, schema: pa.Schema) -> list[pa.Array]:
    return [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)]


def _order(table: sa.Table) -> list[str]:
    return [*tables.key(table)] or [column.name for column in table.columns]


def _in_binary_order(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return column.collate("C") if isinstance(column.type, Text) else column


def _from_duckdb(connection: sa.Connection, table: sa.Table, month: date | None) -> duckdb.DuckDBPyRelation:
    driver_connection: Any = connection.connection.driver_connection
    relation: duckdb.DuckDBPyRelation = driver_connection.table(table.name)
    if month:
        day = duckdb.ColumnExpression("day")
        after = month_of(month)[1] + timedelta(1)
        relation = relation.filter((day >= duckdb.ConstantExpression(month)) & (day < duckdb.ConstantExpression(after)))
    return relation.order(", ".join(_order(table)))
