"""Reads and damages what runs publish: the snapshot and the Parquet files."""

from pathlib import Path
from typing import Any

import duckdb

from tests.support.world import World
from warehouse import parquet, tables

CELLS = tables.daily_sessions.name
HEADER, BLOCK = 3 * 4096, 262144  # of a DuckDB file, in bytes

Relations = dict[str, list[tuple[Any, ...]]]


def snapshot_of(world: World) -> Path:
    snapshot = world.settings.published_snapshot
    assert snapshot is not None
    return snapshot


def seem_published(world: World) -> None:
    """Let what is stored now count as published, so that a command with nothing to load publishes nothing."""
    for path in (snapshot_of(world), parquet_of(world) / parquet.SUMS):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def in_snapshot(world: World, sql: str) -> list[tuple[object, ...]]:
    """The rows of a query on the published snapshot."""
    with duckdb.connect(str(snapshot_of(world)), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def files_of(world: World) -> list[Path]:
    """The published files: with a DuckDB warehouse, the snapshot and the Parquet files."""
    return sorted(path for path in (world.directory / "published").rglob("*") if path.is_file())


def sums(world: World) -> dict[str, int]:
    """The sessions in daily_sessions and in each rollup, and in their published copies if there is a snapshot."""
    tables = ["daily_sessions", "weekly_sessions", "monthly_sessions", "enterprise_sessions"]
    found = {table: int(world.rows(f"select sum(sessions_count) from {table}")[0][0]) for table in tables}
    if world.settings.published_snapshot:
        for table in tables:
            [(total,)] = in_snapshot(world, f"select sum(sessions_count)::bigint from {table}")
            found[f"published {table}"] = int(str(total))
    return found


def has_no_temporary_files(directory: Path) -> bool:
    return not [path for path in directory.rglob(".*") if path.is_file()]


def parquet_of(world: World) -> Path:
    return snapshot_of(world).parent / "parquet"


def month_of(world: World, month: str) -> Path:
    return parquet_of(world) / CELLS / f"{month}.parquet"


def relations(database: Path, *only: str) -> Relations:
    """Every row of every table and view, or of those alone that are named."""
    with duckdb.connect(str(database), read_only=True) as connection:
        names = connection.execute("select table_schema, table_name from information_schema.tables").fetchall()
        chosen = [(schema, name) for schema, name in names if not only or name in only]
        return {name: connection.execute(f"from {schema}.{name} order by all").fetchall() for schema, name in chosen}


def flip_a_bit(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def damage_rows(path: Path, table: str) -> None:
    """Flip one bit in a block of a DuckDB file that holds rows of the table."""
    with duckdb.connect(str(path), read_only=True) as connection:
        blocks = connection.execute(
            "select block_id, block_offset from pragma_storage_info(?) where block_id >= 0", [table]
        ).fetchall()
    block, offset = blocks[0]
    flip_a_bit(path, HEADER + block * BLOCK + 8 + offset)
