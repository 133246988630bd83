"""A query's result for programs: CSV, JSON or Parquet, on standard output or in a file."""

import csv
import io
import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.command.exit_codes import WrongUse
from pipelines.command.query import QueryResult
from pipelines.command.screen import as_text
from resources.file_errors import obstacle
from resources.files import replacing_beside_others

Format = Literal["csv", "excel", "json", "parquet"]

_ROWS_PER_BATCH = 10_000
# Spreadsheets take text that starts with one of these for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def chosen_format(output: Path | None, **flags: bool) -> Format | None:
    """The format that the flags `csv`, `excel` and `json` and the name of the file ask for; None for a table.

    Raises WrongUse if they ask for two, or the name for none that can be written.
    """
    chosen: list[Format] = [form for form in ("csv", "excel", "json") if flags[form]]
    if len(chosen) > 1:
        raise WrongUse("Choose one of --csv and --json, for programs, and --excel, for spreadsheets.")
    if output is None:
        return chosen[0] if chosen else None
    by_name: dict[str, tuple[Format, ...]] = {".csv": ("csv", "excel"), ".json": ("json",), ".parquet": ("parquet",)}
    possible = by_name.get(output.suffix.lower())
    if possible is None:
        raise WrongUse(
            f"{output} says no format. Choose a name that ends with .csv, .json or .parquet. Excel opens .csv files; "
            "add --excel, so that no text becomes a formula."
        )
    if chosen and chosen[0] not in possible:
        raise WrongUse(f"{output} and --{chosen[0]} contradict each other. Leave one of them out.")
    return chosen[0] if chosen else possible[0]


def write(result: QueryResult, form: Format) -> None:
    """Write the result to standard output, in UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    _write_text(result, form, sys.stdout)
    sys.stdout.flush()


def write_file(result: QueryResult, form: Format, path: Path) -> int:
    """Replace the file as a whole. Returns the number of rows. Raises WrongUse if it can't be written."""
    if not path.parent.is_dir():
        raise WrongUse(f"{path} cannot be written: there is no directory {path.parent}.")
    if path.exists() and not path.is_file():
        raise WrongUse(f"{path} cannot be written: it is not a regular file. Choose another name.")
    counted = itertools.count()
    rows = (row for row, _ in zip(result.rows, counted, strict=False))
    counting = replace(result, rows=rows)
    try:
        with replacing_beside_others(path.resolve()) as file:
            if form == "parquet":
                _write_parquet(counting, file)
            else:
                text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
                _write_text(counting, form, text)
                text.detach()
    except OSError as error:
        found = obstacle(error, path.absolute())
        raise WrongUse(f"{path} cannot be written: {found.why}. {found.fix}.") from None
    return next(counted)


def _write_text(result: QueryResult, form: Format, out: TextIO) -> None:
    if form == "json":
        _write_json(result, out)
    else:
        _write_csv(result, out, for_spreadsheet=form == "excel")


def _write_csv(result: QueryResult, out: TextIO, *, for_spreadsheet: bool) -> None:
    """`for_spreadsheet` adds a byte order mark, and an apostrophe before text that would otherwise become a formula."""
    if for_spreadsheet:
        out.write("\ufeff")
    writer = csv.writer(_Lines(out), lineterminator=_CRLF)
    convert = _escape_formula if for_spreadsheet else as_text
    writer.writerow(map(convert, result.columns))
    for row in result.rows:
        writer.writerow(map(convert, row))


_CRLF = "\r\n"


class _Lines:
    """Ends lines as Unix does. csv.writer only quotes the characters of its own line end, and both must be quoted."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, line: str) -> None:
        self._out.write(line.removesuffix(_CRLF) + "\n")


def _escape_formula(value: object) -> str:
    text = as_text(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text


def _write_json(result: QueryResult, out: TextIO) -> None:
    """An array with one object per row and line."""
    names = _distinct_names(result)
    out.write("[")
    separator = "\n"
    for row in result.rows:
        out.write(separator + json.dumps(dict(zip(names, map(_for_json, row), strict=True)), ensure_ascii=False))
        separator = ",\n"
    out.write("\n]\n")


def _for_json(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal() if not value.is_finite():
            return str(value)
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case date() | time():
            return value.isoformat()
        case list() | tuple():
            return [_for_json(part) for part in value]
        case dict():
            return {str(key): _for_json(part) for key, part in value.items()}
    return str(value)


def _distinct_names(result: QueryResult) -> Sequence[str]:
    double = {name for name in result.columns if result.columns.count(name) > 1}
    if double:
        raise WrongUse(f"Two columns are called {min(double)}. Give each a name of its own, with as.")
    return result.columns


_ARROW_TYPES = {
    "bool": pa.bool_(),
    **dict.fromkeys(("int2", "int4", "int8"), pa.int64()),
    **dict.fromkeys(("float4", "float8", "numeric"), pa.float64()),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
"""The types of Arrow for those of PostgreSQL; all others are written as text."""


def _write_parquet(result: QueryResult, file: BinaryIO) -> None:
    names = _distinct_names(result)
    if result.is_duckdb:
        with duckdb.connect() as connection:
            nulls = ", ".join(f"cast(null as {type_})" for type_ in result.types)
            types = connection.sql(f"select {nulls}").to_arrow_table().schema.types
    else:
        types = [_ARROW_TYPES.get(type_, pa.string()) for type_ in result.types]
    schema = pa.schema(list(zip(names, types, strict=True)))
    try:
        with pq.ParquetWriter(file, schema) as writer:
            for rows in _batches(result.rows):
                columns = [_array(*column) for column in zip(names, types, zip(*rows, strict=True), strict=True)]
                writer.write_batch(pa.record_batch(columns, schema=schema))
    except pa.ArrowException as error:
        raise WrongUse(f"This result can't be written as Parquet: {error}. Cast that column to varchar.") from None


def _batches(rows: Iterator[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    while batch := list(itertools.islice(rows, _ROWS_PER_BATCH)):
        yield batch


def _array(name: str, type_: pa.DataType, values: Iterable[Any]) -> pa.Array:
    convert = float if pa.types.is_floating(type_) else str if pa.types.is_string(type_) else None
    try:
        converted = (value if value is None or convert is None else convert(value) for value in values)
        return pa.array(list(converted), type_)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise WrongUse(
            f"The column {name} can't be written as Parquet ({error}). Cast it, such as to varchar."
        ) from None
