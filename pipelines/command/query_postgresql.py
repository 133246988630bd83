"""A query on PostgreSQL. Values arrive as the server prints them; JSON and Parquet get types by the columns' types."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import islice
from typing import Any, cast

import psycopg
import pyarrow as pa
from psycopg import generators
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.errors import error_from_result
from psycopg.types import TypeInfo
from psycopg.types.array import ArrayLoader

from pipelines.command.exit_codes import WrongUse
from pipelines.command.query_result import (
    NO_ROWS,
    ROWS_PER_BATCH,
    ROWS_PER_FETCH,
    Kind,
    QueryRefused,
    json_document,
    json_number,
    json_string,
)

_INTEGERS = {"int2", "int4", "int8", "oid"}
_NUMBERS = {*_INTEGERS, "float4", "float8", "numeric"}
_ENCODERS: dict[str, Callable[[str], str]] = {
    "bool": str,
    **dict.fromkeys(_NUMBERS, json_number),
    **dict.fromkeys(("json", "jsonb"), json_document),
}
"""What makes JSON of the text of a value, by type; for all others it is a string."""

_ARROW_TYPES = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.uint32(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
"""The types of Arrow for those of PostgreSQL; all others but numeric are text."""

_MAX_DIGITS = 38  # more are in no type that every reader of Parquet knows


@dataclass(frozen=True)
class Column:
    """A column's name, the name of its type or of its elements' type, and what a declaration adds to that type."""

    name: str
    type: str
    is_array: bool
    modifier: int

    @property
    def kind(self) -> Kind:
        if self.is_array or self.type not in _NUMBERS:
            return "other"
        return "integer" if self.type in _INTEGERS else "number"

    def as_json(self, value: Any) -> str:
        """A value as JSON: text, or lists of text in an array."""
        if value is None:
            return "null"
        if isinstance(value, list):
            return f"[{', '.join(map(self.as_json, value))}]"
        if isinstance(value, _WithBounds):
            return json_string(value)
        return _ENCODERS.get(self.type, json_string)(value)

    def arrow_type(self, values: Sequence[Any]) -> pa.DataType:
        """The type of Arrow for this column, whose first values these are."""
        if self.is_array:
            return pa.list_(_ARROW_TYPES.get(self.type, pa.string()))
        return self._decimal(values) if self.type == "numeric" else _ARROW_TYPES.get(self.type, pa.string())

    def _decimal(self, values: Sequence[str | None]) -> pa.DataType:
        """Decimals of the declared size; if none is declared, with as many decimal places as these values have."""
        precision, scale = self.modifier - 4 >> 16, (self.modifier - 4 & 0x7FF ^ 0x400) - 0x400
        if self.modifier >= 0 and precision <= _MAX_DIGITS and 0 <= scale <= precision:
            return pa.decimal128(precision, scale)
        exponents = (Decimal(value).as_tuple().exponent for value in values if value is not None)
        scale = max((-exponent for exponent in exponents if isinstance(exponent, int)), default=0)
        return pa.decimal128(_MAX_DIGITS, min(scale, _MAX_DIGITS))

    def as_array(self, values: Sequence[Any], type_: pa.DataType) -> pa.Array:
        """Raises WrongUse for a value that this type lacks."""
        try:
            if pa.types.is_decimal(type_):  # from text, pyarrow would take numbers that are too large, and change them
                return pa.array([None if value is None else Decimal(value) for value in values], type_)
            if pa.types.is_list(type_):
                if any(isinstance(value, _WithBounds) for value in values):
                    raise ValueError("a list has no bounds")
                return pa.array(values, pa.list_(pa.string())).cast(type_)
            return pa.array(values, pa.string()).cast(type_)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise WrongUse(
                f"The column {self.name} can't be written as Parquet ({error}). Cast it, such as to varchar."
            ) from None


@dataclass(frozen=True)
class PostgreSQLResult:
    """The result of one statement, which runs when its rows are fetched."""

    connection: psycopg.Connection
    sql: str
    columns: Sequence[Column]

    @property
    def names(self) -> Sequence[str]:
        return [column.name for column in self.columns]

    @property
    def kinds(self) -> Sequence[Kind]:
        return [column.kind for column in self.columns]

    def texts(self) -> Generator[Sequence[str | None]]:
        return self._rows(lambda _: _Text)

    def json(self) -> Generator[Sequence[str]]:
        with contextlib.closing(self._rows(_array_loader)) as rows:
            for row in rows:
                yield [column.as_json(value) for column, value in zip(self.columns, row, strict=True)]

    def batches(self) -> Generator[pa.RecordBatch]:
        with contextlib.closing(self._rows(_array_loader)) as rows:
            batch = list(islice(rows, ROWS_PER_BATCH))
            values: Sequence[Sequence[Any]] = list(zip(*batch, strict=True)) or [()] * len(self.columns)
            types = [column.arrow_type(of_column) for column, of_column in zip(self.columns, values, strict=True)]
            yield self._record_batch(values, types)
            while batch := list(islice(rows, ROWS_PER_BATCH)):
                yield self._record_batch(list(zip(*batch, strict=True)), types)

    def _record_batch(self, values: Sequence[Sequence[Any]], types: Sequence[pa.DataType]) -> pa.RecordBatch:
        columns = zip(self.columns, values, types, strict=True)
        arrays = [column.as_array(of_column, type_) for column, of_column, type_ in columns]
        return pa.record_batch(arrays, names=self.names)

    def _rows(self, array_loader: Callable[[TypeInfo], type[Loader]]) -> Generator[Sequence[Any]]:
        with self.connection.cursor() as cursor:
            for info in self.connection.adapters.types:
                cursor.adapters.register_loader(info.oid, _Bool if info.name == "bool" else _Text)
                if info.array_oid:
                    cursor.adapters.register_loader(info.array_oid, array_loader(info))
            # Without a stream, all rows would be fetched before the first.
            size = ROWS_PER_FETCH if psycopg.capabilities.has_stream_chunked() else 1
            rows = cursor.stream(self.sql.encode(), size=size)
            with contextlib.closing(cast(Generator[Any], rows)):
                yield from rows


class _Text(Loader):
    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


class _Bool(Loader):
    def load(self, data: Buffer) -> str:
        return "true" if bytes(data) == b"t" else "false"


class _WithBounds(str):
    """The text of an array whose first element is not the number 1, which no list can say."""


class _Array(ArrayLoader):
    def load(self, data: Buffer) -> Any:
        return _WithBounds(bytes(data).decode()) if bytes(data[:1]) == b"[" else super().load(data)


@cache
def _array_loader(info: TypeInfo) -> type[Loader]:
    return type("_ArrayOf", (_Array,), {"base_oid": info.oid, "delimiter": info.delimiter.encode()})


def run(connection: psycopg.Connection, sql: str) -> PostgreSQLResult:
    """Raises QueryRefused, or psycopg's error, if this is not one statement that returns rows."""
    _ask(connection, connection.pgconn.send_prepare, b"", sql.encode())
    found = _ask(connection, connection.pgconn.send_describe_prepared, b"")
    if found.nparams:
        raise QueryRefused("This SQL has a parameter, such as $1. Write its value instead.")
    if not found.nfields:  # such as copy, which would send what nobody reads
        raise QueryRefused(NO_ROWS)
    columns = []
    for n in range(found.nfields):
        info = connection.adapters.types.get(found.ftype(n))
        is_array = bool(info) and info.array_oid == found.ftype(n)
        columns.append(Column((found.fname(n) or b"").decode(), info.name if info else "", is_array, found.fmod(n)))
    return PostgreSQLResult(connection, sql, columns)


def _ask(connection: psycopg.Connection, send: Callable[..., None], *arguments: bytes) -> Any:
    """The server's answer, waited for so that a signal is noticed."""
    send(*arguments)
    (answer,) = connection.wait(generators.execute(connection.pgconn))
    if answer.status != psycopg.pq.ExecStatus.COMMAND_OK:
        raise error_from_result(answer, connection.info.encoding)
    return answer
