"""The warehouse as Parquet files: one file per month for counts, one per table for everything else."""

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from warehouse import tables
from warehouse.snapshot import find_bookkeeping

_FINGERPRINT = b"devin_sessions.fingerprint"

SUMS = "SHA256SUMS"  # of every file, in the form that `sha256sum --check` reads; written last


class CorruptWrite(Exception):
    """A file that was just written can't be read back: disk or memory is failing. The message is for the user."""


Replacing = Callable[[Path, Path | None], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Exported:
    """How many files were written, and how many were already up to date."""

    written: int
    kept: int


def export(connection: sa.Connection, directory: Path, replacing: Replacing) -> Exported:
    """Bring the files in `directory` up to date with this DuckDB warehouse or snapshot, replacing each as a whole.

    Counts are in one file per month, such as daily_sessions/2025-01.parquet; a month that hasn't changed is left alone,
    unless its file no longer has the checksum in SHA256SUMS. Other tables are in one file each, such as
    organizations.parquet. A new file is read back before it replaces another. Only one process may do this at a time.

    replacing: opens a file that replaces the one at the first path. If there is none yet, the new file gets the
        permissions of the one at the second path.

    Raises OSError, and CorruptWrite if a new file doesn't contain what was written to it.
    """
    find_bookkeeping(connection)
    before, sums = _read_sums(directory), {}
    written = kept = 0
    for table in _published("monthly"):
        for month, fingerprint in _months(connection, table).items():
            path = directory / table.name / f"{month:%Y-%m}.parquet"
            name = path.relative_to(directory).as_posix()
            if _fingerprint_of(path) == fingerprint and _sum_of(path) == before.get(name):
                sums[name] = before[name]
                kept += 1
                continue
            of_month = duckdb.FunctionExpression(
                "date_trunc", duckdb.ConstantExpression("month"), duckdb.ColumnExpression("day")
            ) == duckdb.ConstantExpression(month)
            rows = _relation(connection, table).filter(of_month).order(", ".join(tables.key(table)))
            of_file = rows.to_arrow_table().replace_schema_metadata({_FINGERPRINT: fingerprint})
            sums[name] = _write(replacing, path, of_file)
            written += 1
    for table in _published("whole"):
        name = f"{table.name}.parquet"
        rows = _relation(connection, table).order(", ".join(tables.key(table)) or "all")
        sums[name] = _write(replacing, directory / name, rows.to_arrow_table())
        written += 1
    with replacing(directory / SUMS, directory / name) as file:
        file.write("".join(f"{sum_}  {name}\n" for name, sum_ in sorted(sums.items())).encode())
    return Exported(written, kept)


def read(path: Path) -> pa.Table:
    """Read a whole file and verify the checksums of its pages.

    Raises OSError, pyarrow.ArrowException or ValueError if it is missing or damaged.
    """
    return pq.ParquetFile(path, page_checksum_verification=True).read()


def _read_sums(directory: Path) -> dict[str, str]:
    try:
        lines = (directory / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # missing or damaged: every month is written again
        return {}
    return {name: sum_ for sum_, _, name in (line.partition("  ") for line in lines)}


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _published(how: Literal["whole", "monthly"]) -> list[sa.Table]:
    return [relation for relation in tables.RELATIONS if tables.facts(relation).parquet == how]


def _months(connection: sa.Connection, counts: sa.Table) -> dict[date, bytes]:
    """Each month that has counts, with a fingerprint that changes whenever one of them does."""
    cells = counts.c
    month = sa.cast(sa.func.date_trunc("month", cells.day), sa.Date)
    # Not the latest loaded_at: one from a clock that was ahead would hide every later change.
    contents = sa.func.bit_xor(sa.func.hash(*cells))
    rows = connection.execute(sa.select(month, sa.func.count(), contents).group_by(month).order_by(month))
    return {of_month: json.dumps([number, int(hashed)]).encode() for of_month, number, hashed in rows}


def _fingerprint_of(path: Path) -> bytes | None:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException, ValueError):  # missing or damaged
        return None
    fingerprint: bytes | None = metadata.get(_FINGERPRINT)
    return fingerprint


def _relation(connection: sa.Connection, table: sa.Table) -> duckdb.DuckDBPyRelation:
    driver_connection: Any = connection.connection.driver_connection
    relation: duckdb.DuckDBPyRelation = driver_connection.table(table.name)
    return relation


def _write(replacing: Replacing, path: Path, rows: pa.Table) -> str:
    """Write a file and read it back. Returns its SHA-256."""
    # A new month is readable by those who can read the latest one.
    like = max(path.parent.glob("*.parquet"), default=None)
    with replacing(path, like) as file:
        pq.write_table(rows, file, compression="zstd", write_page_checksum=True)
        file.flush()
        unfinished = Path(file.name)
        sum_ = _sum_of(unfinished)
        try:
            is_whole = read(unfinished).equals(rows)
        except (pa.ArrowException, ValueError):
            is_whole = False
        if not is_whole:
            raise CorruptWrite(
                f"Cannot read back what was written to {path}, so the previous file is kept. The disk or memory of "
                "this machine may be failing: check both, then run the same command again."
            )
    return sum_
