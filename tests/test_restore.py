"""A damaged warehouse is built again: from its own rows, the snapshot, Parquet, or what they have between them."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from pipelines import cli
from tests.conftest import PostgreSQL, World
from tests.test_cli import PROJECT, devin_sessions, snapshot_of, sums
from tests.test_publish import month_of, parquet_of, publish, relations

FIRST, LAST = "2025-01-20", "2025-02-10"
HEADER, BLOCK = 3 * 4096, 262144


def damage(path: Path, at: int) -> None:
    """Flip one bit."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def damage_table(path: Path, table: str) -> None:
    """Flip one bit in a block that holds rows of the table."""
    with duckdb.connect(str(path), read_only=True) as connection:
        blocks = connection.execute(
            "select block_id, block_offset from pragma_storage_info(?) where block_id >= 0", [table]
        ).fetchall()
    block, offset = blocks[0]
    damage(path, HEADER + block * BLOCK + 8 + offset)


def damage_keys(path: Path) -> None:
    """Flip one bit in a block that holds the keys of the counts alone."""
    with duckdb.connect(str(path), read_only=True) as connection:
        used = {block for (block,) in connection.execute("select block_id from pragma_metadata_info()").fetchall()}
        for (table,) in connection.execute("select table_name from duckdb_tables()").fetchall():
            rows = connection.execute("select block_id, additional_block_ids from pragma_storage_info(?)", [table])
            for block, more in rows.fetchall():
                used |= {block, *(more or [])}
    for block in range((path.stat().st_size - HEADER) // BLOCK):
        if block not in used:
            damage(path, HEADER + block * BLOCK + 100)


def asides(world: World) -> list[Path]:
    return sorted(world.folder.glob("warehouse.duckdb.damaged-*[0-9]"))


@pytest.fixture
def loaded(world: World) -> World:
    """Six weeks, published."""
    assert world.run(FIRST, LAST).success
    return world


def kept(world: World) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table and view of the warehouse but for the days that are to be built again."""
    found = relations(world.database.path)
    found.pop("stale_days")
    return found


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: damage(path, 100), id="its header"),
        pytest.param(lambda path: damage_table(path, "daily_sessions"), id="its counts"),
        pytest.param(lambda path: damage_table(path, "weekly_sessions"), id="a rollup"),
        pytest.param(damage_keys, id="its keys"),
        pytest.param(lambda path: os.truncate(path, path.stat().st_size // 2), id="cut off"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"day,count\n" * 9999), id="of another kind"),
        pytest.param(lambda path: path.unlink(), id="gone"),
    ],
)
def test_a_damaged_warehouse_is_what_it_was_after_a_restore(loaded: World, spoil: Callable[[Path], None]) -> None:
    path = loaded.database.path
    before, mode = kept(loaded), path.stat().st_mode
    spoil(path)
    damaged = path.read_bytes() if path.exists() else None
    code, out, err = devin_sessions("restore")
    assert (code, err) == (0, ""), (code, out, err)
    assert f"Restored the warehouse {path} from " in out
    assert kept(loaded) == before
    assert path.stat().st_mode == mode
    assert [file.read_bytes() for file in asides(loaded)] == ([damaged] if damaged is not None else [])
    code, out, err = devin_sessions("backfill", FIRST, "2025-02-12")
    assert (code, err) == (0, "")
    assert "2 of 2 days loaded" in out
    assert loaded.cells() == loaded.truth(FIRST, "2025-02-12")
    assert len(set(sums(loaded).values())) == 1
