"""What is stored as Parquet files: the counts in a file a month, any other table in one."""

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

_FINGERPRINT = b"devin_sessions.fingerprint"

SUMS = "SHA256SUMS"  # of every file, as `sha256sum --check` reads it, and written after all of them


class Spoilt(Exception):
    """A file that was just written can't be read back: the disk or the memory is failing. For the user."""


Replacing = Callable[[Path, Path | None], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Exported:
    """How many files were written, and how many were left as they were."""

    written: int
    kept: int


def export(connection: sa.Connection, folder: Path, replacing: Replacing) -> Exported:
    """Bring the files in `folder` up to what this DuckDB holds. Each is replaced whole; an unchanged month is left.

    A new file is read back before it replaces another. An unchanged month is written again if its bytes are not those
    that were written, as SHA256SUMS has them.

    `replacing` opens a file to take the place of the one at a path, with the permissions of the second if it is
    new.

    The counts of a month are in daily_sessions/2025-01.parquet, other tables in organizations.parquet and so on.
    One process at a time. Raises OSError, and Spoilt if a new file doesn't hold what was written to it.
    """
    before, sums = _sums_in(folder), {}
    written = kept = 0
    for table in _published("monthly"):
        for month, fingerprint in _months(connection, table).items():
            path = folder / table.name / f"{month:%Y-%m}.parquet"
            name = path.relative_to(folder).as_posix()
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
        sums[name] = _write(replacing, folder / name, _relation(connection, table).to_arrow_table())
        written += 1
    with replacing(folder / SUMS, folder / name) as file:
        file.write("".join(f"{sum_}  {name}\n" for name, sum_ in sorted(sums.items())).encode())
    return Exported(written, kept)


def read(path: Path) -> pa.Table:
    """All of a file, with the checksums of its pages.

    Raises OSError, pyarrow.ArrowException or ValueError if there is none or it is spoilt.
    """
    return pq.ParquetFile(path, page_checksum_verification=True).read()


def _sums_in(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # none yet, or one that something else has spoiled: every month is written again
        return {}
    return {name: sum_ for sum_, _, name in (line.partition("  ") for line in lines)}


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _published(how: Literal["whole", "monthly"]) -> list[sa.Table]:
    return [relation for relation in tables.RELATIONS if tables.facts(relation).parquet == how]


def _months(connection: sa.Connection, counts: sa.Table) -> dict[date, bytes]:
    """Each month that has counts, and what changes whenever one of them does."""
    cells = counts.c
    month = sa.cast(sa.func.date_trunc("month", cells.day), sa.Date)
    latest, total = sa.func.max(cells.loaded_at), sa.func.sum(cells.sessions_count)
    rows = connection.execute(sa.select(month, sa.func.count(), total, latest).group_by(month).order_by(month))
    return {
        of_month: json.dumps([cells, int(sessions), loaded_at.isoformat()]).encode()
        for of_month, cells, sessions, loaded_at in rows
    }


def _fingerprint_of(path: Path) -> bytes | None:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException, ValueError):  # none yet, or one that something else has spoiled
        return None
    fingerprint: bytes | None = metadata.get(_FINGERPRINT)
    return fingerprint


def _relation(connection: sa.Connection, table: sa.Table) -> duckdb.DuckDBPyRelation:
    driver_connection: Any = connection.connection.driver_connection
    relation: duckdb.DuckDBPyRelation = driver_connection.table(table.name)
    return relation


def _write(replacing: Replacing, path: Path, rows: pa.Table) -> str:
    """Returns the file's SHA-256."""
    # Those who may read one month may read a new one.
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
            raise Spoilt(
                f"What was written to {path} can't be read back. The file that was there is kept. The disk or memory "
                "of this machine may be failing. Check them, then run the same command again."
            )
    return sum_
