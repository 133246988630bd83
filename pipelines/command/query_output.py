"""A query's result for programs: CSV, JSON or Parquet, on standard output or in a file."""

import contextlib
import io
import itertools
import re
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TextIO, TypeVar

import pyarrow.parquet as pq

from pipelines.command.exit_codes import WrongUse
from pipelines.command.query_result import Kind, QueryResult, json_string
from resources.file_errors import obstacle
from resources.files import replacing_beside_others

Format = Literal["csv", "excel", "json", "parquet"]
_Item = TypeVar("_Item")

# Spreadsheets take text that starts with one of these for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_TO_QUOTE = re.compile(r'[",\r\n]')


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
    try:
        with replacing_beside_others(path.resolve()) as file:
            if form == "parquet":
                return _write_parquet(result, file)
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            written = _write_text(result, form, text)
            text.detach()
            return written
    except OSError as error:
        found = obstacle(error, path.absolute())
        raise WrongUse(f"{path} cannot be written: {found.why}. {found.fix}.") from None


def _write_text(result: QueryResult, form: Format, out: TextIO) -> int:
    return _write_json(result, out) if form == "json" else _write_csv(result, out, for_spreadsheet=form == "excel")


def _write_csv(result: QueryResult, out: TextIO, *, for_spreadsheet: bool) -> int:
    """As PostgreSQL's copy writes it: NULL is empty, and an empty text is quoted. Returns the number of rows.

    `for_spreadsheet` adds a byte order mark, and an apostrophe before text that would otherwise become a formula.
    """
    other: Kind = "other"
    number = 0
    with _begun(result.texts()) as rows:
        out.write("\ufeff" if for_spreadsheet else "")
        out.write(_line(result.names, [other] * len(result.names) if for_spreadsheet else None))
        kinds = result.kinds if for_spreadsheet else None
        for row in rows:
            out.write(_line(row, kinds))
            number += 1
    return number


def _line(texts: Sequence[str | None], kinds: Sequence[Kind] | None) -> str:
    """A line of CSV; with the columns' kinds, no text in it becomes a formula."""
    return ",".join(map(_field, map(_escape_formula, texts, kinds) if kinds else texts)) + "\n"


def _field(text: str | None) -> str:
    if text is None:
        return ""
    return '"' + text.replace('"', '""') + '"' if not text or _TO_QUOTE.search(text) else text


def _escape_formula(text: str | None, kind: Kind) -> str | None:
    if text is None or not text.startswith(_FORMULA_STARTS) or (kind != "other" and text[-1].isdigit()):
        return text
    return f"'{text}"


def _write_json(result: QueryResult, out: TextIO) -> int:
    """An array with one object per row and line. Returns the number of rows."""
    keys = [json_string(name) for name in _distinct_names(result)]
    number = 0
    with _begun(result.json()) as rows:
        out.write("[")
        for number, row in enumerate(rows, start=1):
            pairs = (f"{key}: {value}" for key, value in zip(keys, row, strict=True))
            out.write(f"{',' if number > 1 else ''}\n{{{', '.join(pairs)}}}")
        out.write("\n]\n")
    return number


def _write_parquet(result: QueryResult, file: BinaryIO) -> int:
    """Returns the number of rows."""
    _distinct_names(result)
    with _begun(result.batches()) as batches:
        first = next(batches)
        number = 0
        with pq.ParquetWriter(file, first.schema) as writer:
            for batch in itertools.chain([first], batches):
                if batch.num_rows:
                    writer.write_batch(batch)
                number += batch.num_rows
    return number


@contextlib.contextmanager
def _begun(items: Generator[_Item]) -> Iterator[Iterator[_Item]]:
    """These, after the first is there: if the query fails at once, nothing is written."""
    with contextlib.closing(items):
        first = list(itertools.islice(items, 1))
        yield itertools.chain(first, items)


def _distinct_names(result: QueryResult) -> Sequence[str]:
    double = {name for name in result.names if result.names.count(name) > 1}
    if double:
        raise WrongUse(f"Two columns are called {min(double)}. Give each a name of its own, with as.")
    return result.names
