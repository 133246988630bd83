"""A query on DuckDB. DuckDB itself turns its values into text, and into the types that JSON and Parquet have."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.sqltypes import DuckDBPyType

from pipelines.command.exit_codes import WrongUse
from pipelines.command.query_result import (
    NO_ROWS,
    ONE_STATEMENT,
    ROWS_PER_BATCH,
    ROWS_PER_FETCH,
    Kind,
    QueryRefused,
    json_document,
    json_number,
    json_string,
)
from resources.identifiers import quoted

_INTEGERS = {f"{sign}{size}" for sign in ("", "u") for size in ("tinyint", "smallint", "integer", "bigint", "hugeint")}
_NUMBERS = {*_INTEGERS, "bignum", "decimal", "double", "float"}
_IN_PARQUET = {
    *(_NUMBERS - {"bignum"}),
    *("boolean", "varchar", "blob", "date", "time", "time_ns"),
    *("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"),
}
_TEXT = "VARCHAR"


@dataclass(frozen=True)
class DuckDBResult:
    """The result of one statement, which runs when its rows are fetched."""

    relation: duckdb.DuckDBPyRelation

    @property
    def names(self) -> Sequence[str]:
        return self.relation.columns

    @property
    def kinds(self) -> Sequence[Kind]:
        ids = [type_.id for type_ in self.relation.types]
        return ["integer" if id_ in _INTEGERS else "number" if id_ in _NUMBERS else "other" for id_ in ids]

    def texts(self) -> Generator[Sequence[str | None]]:
        return self._rows(lambda _: _TEXT)

    def json(self) -> Generator[Sequence[str]]:
        encoders = [_encoder(type_) for type_ in self.relation.types]
        with contextlib.closing(self._rows(lambda type_: _rebuilt(type_, lambda _: _TEXT))) as rows:
            for row in rows:
                yield [encode(value) for encode, value in zip(encoders, row, strict=True)]

    def batches(self) -> Generator[pa.RecordBatch]:
        with contextlib.closing(self._cast(lambda type_: _rebuilt(type_, _parquet_leaf))) as cast:
            try:
                reader = cast.to_arrow_reader(ROWS_PER_BATCH)
                yield pa.record_batch([pa.array([], type_) for type_ in reader.schema.types], names=self.names)
                for batch in reader:
                    for name, column in zip(self.names, batch.columns, strict=True):
                        if _has_infinity(column):
                            raise WrongUse(
                                f"The column {name} can't be written as Parquet: it has infinity, which Parquet lacks. "
                                "Cast it, such as to varchar."
                            )
                    yield batch.rename_columns(self.names)
            except duckdb.ConversionException as error:
                raise WrongUse(
                    f"This result can't be written as Parquet: {without_cast(error)}. Cast that column to varchar."
                ) from None

    def _cast(self, to: Callable[[DuckDBPyType], str]) -> duckdb.DuckDBPyRelation:
        # By position, since two columns may have the same name.
        casts = (f"{_CAST}{n} as {to(type_)})" for n, type_ in enumerate(self.relation.types, start=1))
        return self.relation.project(", ".join(casts))

    def _rows(self, to: Callable[[DuckDBPyType], str]) -> Generator[Sequence[Any]]:
        with contextlib.closing(self._cast(to)) as cast:
            while rows := cast.fetchmany(ROWS_PER_FETCH):
                yield from rows


_CAST = "CAST(#"


def run(connection: duckdb.DuckDBPyConnection, sql: str) -> DuckDBResult:
    """Raises QueryRefused, or DuckDB's own error, if this is not one statement that returns rows."""
    statements = connection.extract_statements(sql)
    # A pivot is a statement without text of its own, after others that create the types it needs.
    given = [each for each in statements if each.query or each.type != duckdb.StatementType.CREATE]
    if len(given) > 1:
        raise QueryRefused(ONE_STATEMENT)
    if not given or duckdb.ExpectedResultType.QUERY_RESULT not in given[0].expected_result_type:
        raise QueryRefused(NO_ROWS)
    relation: duckdb.DuckDBPyRelation | None = connection.sql(sql)
    if relation is None:
        raise QueryRefused(NO_ROWS)
    return DuckDBResult(relation)


def without_cast(error: BaseException | None) -> str:
    """DuckDB's message, without the line that shows the SQL around a cast of this module."""
    return str(error).split(f"\n\nLINE 1: SELECT {_CAST}")[0]


def _rebuilt(type_: DuckDBPyType, leaf: Callable[[DuckDBPyType], str]) -> str:
    """`type_` in SQL, with `leaf` of each type in place of those that lists, structs and maps consist of."""
    if type_.id in ("list", "array"):
        return f"{_rebuilt(_parts(type_)['child'], leaf)}[]"
    if type_.id == "map":
        return f"MAP({leaf(_parts(type_)['key'])}, {_rebuilt(_parts(type_)['value'], leaf)})"
    if _is_named_struct(type_):
        fields = (f"{quoted(name)} {_rebuilt(part, leaf)}" for name, part in _parts(type_).items())
        return f"STRUCT({', '.join(fields)})"
    return leaf(type_)


def _parquet_leaf(type_: DuckDBPyType) -> str:
    if type_.id in ("hugeint", "uhugeint"):  # a sum is one; Arrow has no such integer, and would change the largest
        return "DECIMAL(38, 0)"
    return str(type_) if type_.id in _IN_PARQUET and str(type_) != "JSON" else _TEXT


def _encoder(type_: DuckDBPyType) -> Callable[[Any], str]:
    """What makes JSON of a value of this type in which all leaves, and the keys of maps, are text."""
    encode = _encoder_of_values(type_)
    return lambda value: "null" if value is None else encode(value)


def _encoder_of_values(type_: DuckDBPyType) -> Callable[[Any], str]:
    """The same for all values but NULL."""
    if type_.id in ("list", "array"):
        of_child = _encoder(_parts(type_)["child"])
        return lambda values: f"[{', '.join(map(of_child, values))}]"
    if type_.id == "map":
        of_value = _encoder(_parts(type_)["value"])
        return lambda parts: _object((key, of_value(value)) for key, value in parts.items())
    if _is_named_struct(type_):
        of_parts = {name: _encoder(part) for name, part in _parts(type_).items()}
        return lambda parts: _object((name, of_parts[name](value)) for name, value in parts.items())
    if type_.id == "boolean":
        return str
    if type_.id in _NUMBERS:
        return json_number
    return json_document if str(type_) == "JSON" else json_string


def _object(items: Iterator[tuple[str, str]]) -> str:
    return f"{{{', '.join(f'{json_string(key)}: {value}' for key, value in items)}}}"


def _parts(type_: DuckDBPyType) -> dict[str, Any]:
    return dict(type_.children)


def _is_named_struct(type_: DuckDBPyType) -> bool:
    return type_.id == "struct" and all(name for name, _ in type_.children)


def _has_infinity(array: pa.Array) -> bool:
    """Whether a date or timestamp in it is DuckDB's infinity: the largest number, or its negative."""
    if pa.types.is_map(array.type):
        return _has_infinity(array.keys) or _has_infinity(array.items)
    if pa.types.is_struct(array.type):
        return any(map(_has_infinity, array.flatten()))
    if pa.types.is_list(array.type):
        return _has_infinity(array.flatten())
    if not (pa.types.is_date32(array.type) or pa.types.is_timestamp(array.type)):
        return False
    number = pa.int32() if pa.types.is_date32(array.type) else pa.int64()
    most = 2 ** (number.bit_width - 1) - 1
    return bool(pc.any(pc.is_in(array.view(number), pa.array([most, -most], number))).as_py())
