"""A warehouse whose file is gone: nothing replaces what was published from it, and the copy becomes the warehouse."""

import shutil

import pytest

from tests.support.command import command_here
from tests.support.loads import fill, publish
from tests.support.world import World


@pytest.mark.parametrize("left", ["the snapshot", "the Parquet files"])
def test_no_new_warehouse_is_begun_beside_the_copies_of_the_old_one(
    world: World, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    fill(world, "2025-01-01", "2025-01-03")
    publish(world)
    here, path, snapshot = (
        command_here(capsys, world.environment),
        world.database.path,
        world.settings.published_snapshot,
    )
    assert snapshot
    path.unlink()
    if left == "the Parquet files":
        snapshot.unlink()
    kept = {file: file.read_bytes() for file in snapshot.parent.rglob("*") if file.is_file()}
    for arguments in (["2025-01-04"], ["--missing", "--dry-run"], ["2025-01-01", "--refresh"]):
        code, _, err = here("backfill", *arguments)
        assert (code, path.exists()) == (2, False)
        assert f"The warehouse {path} is missing, but what was published from it is not: {snapshot.parent}" in err
    code, out, _ = here("status")
    assert (code, path.exists()) == (1, False)
    assert "To put the warehouse back: devin-sessions restore" in out and "To load" not in out
    assert {file: file.read_bytes() for file in snapshot.parent.rglob("*") if file.is_file()} == kept
    assert not world.source.requests

    code, out, err = here("restore")
    assert (code, err) == (0, "")
    assert here("backfill", "2025-01-04")[0] == 0
    assert world.cells() == world.truth("2025-01-01", "2025-01-04")

    path.unlink()
    shutil.move(snapshot.parent, world.directory / "aside")
    assert here("backfill", "2025-01-05")[0] == 0
    assert world.cells() == world.truth("2025-01-05", "2025-01-05")


def test_a_new_warehouse_beside_the_old_one_is_not_taken_for_lost(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(world, "2025-01-01", "2025-01-03")
    publish(world)
    for suffix, lost in (("damaged-20250104T000000Z", True), ("old", False)):
        world.database.path.rename(world.directory / f"{'' if lost else 'of-the-'}warehouse.duckdb.{suffix}")
        code, out, _ = command_here(capsys, world.environment)("status")
        assert ("published from it" in out, code) == (lost, 1)
        if lost:
            (world.directory / f"warehouse.duckdb.{suffix}").rename(world.database.path)
