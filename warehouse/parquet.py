"""The warehouse as Parquet files: one file per month for counts, one per table for everything else."""

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from warehouse import tables
from warehouse.arrow import rows_of
from warehouse.snapshot import find_bookkeeping

_FINGERPRINT = b"devin_sessions.fingerprint"

SUMS = "SHA256SUMS"  # of every file, in the form that `sha256sum --check` reads; written last


class CorruptWrite(Exception):
    """A file that was just written can't be read back: disk or memory is failing. The message is for the user."""


Replacing = Callable[[Path, Path | None], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Part:
    """What one file holds: a table, or one month of its counts.

    month: its first day, or None for a whole table.
    fingerprint: of a month, changes whenever one of its counts does. Each database has its own.
    """

    table: sa.Table
    month: date | None = None
    fingerprint: str | None = None

    @property
    def name(self) -> str:
        """The file's path below the directory of all of them."""
        return f"{self.table.name}/{self.month:%Y-%m}.parquet" if self.month else f"{self.table.name}.parquet"


@dataclass(frozen=True)
class Written:
    """A file that was written and read back: its number of rows and its SHA-256."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class Exported:
    """How many files were written, and how many were already up to date."""

    written: int
    kept: int


def directory_beside(snapshot: Path) -> Path:
    """Where the files of a snapshot are."""
    return snapshot.parent / "parquet"


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
    for part in parts(connection):
        path = directory / part.name
        if part.month and _fingerprint_of(path) == part.fingerprint and _sum_of(path) == before.get(part.name):
            sums[part.name] = before[part.name]
            kept += 1
            continue
        sums[part.name] = write(connection, part, path, replacing).sha256
        written += 1
    with replacing(directory / SUMS, directory / part.name) as file:
        file.write("".join(f"{sum_}  {name}\n" for name, sum_ in sorted(sums.items())).encode())
    return Exported(written, kept)


def parts(connection: sa.Connection) -> list[Part]:
    """Every file that the warehouse makes: the months of the counts first, then the other tables."""
    counts = [part for table in _published("monthly") for part in _months(connection, table)]
    return [*counts, *(Part(table) for table in _published("whole"))]


def published_tables() -> list[str]:
    """The names of the tables that become files."""
    return [table.name for table in (*_published("monthly"), *_published("whole"))]


def write(connection: sa.Connection, part: Part, path: Path, replacing: Replacing) -> Written:
    """Write one file and read it back. Raises OSError, or CorruptWrite if it doesn't contain what was written."""
    rows = rows_of(connection, part.table, part.month)
    if part.fingerprint:
        rows = rows.replace_schema_metadata({_FINGERPRINT: part.fingerprint.encode()})
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
    return Written(rows.num_rows, sum_)


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


def _months(connection: sa.Connection, counts: sa.Table) -> list[Part]:
    """Each month that has counts."""
    cells = counts.c
    month = sa.cast(sa.func.date_trunc("month", cells.day), sa.Date)
    # Not the latest loaded_at: one from a clock that was ahead would hide every later change.
    if connection.dialect.name == "duckdb":
        hashed = sa.func.hash(*cells)
    else:
        hashed = sa.func.hashtextextended(sa.cast(sa.func.row(*cells), sa.Text), 0)
    counted = sa.select(month, sa.func.count(), sa.func.bit_xor(hashed)).group_by(month).order_by(month)
    return [
        Part(counts, of_month, json.dumps([number, int(contents)]))
        for of_month, number, contents in connection.execute(counted)
    ]


def _fingerprint_of(path: Path) -> str | None:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException, ValueError):  # missing or damaged
        return None
    fingerprint: bytes | None = metadata.get(_FINGERPRINT)
    return fingerprint.decode() if fingerprint else None
