"""Full and read-only disks, and locked and damaged files: the warehouse's, the published ones and Dagster's.

The disks are file systems in memory. Where mounting is not permitted, those cases do not fire.
"""

import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import duckdb
import sqlalchemy as sa

from tests.faults.cases import Case
from tests.faults.oracle import Stage

KB = 1024
SIZE_OF_A_DISK = "size=48m"
_PAGE = 4096

Fault = Callable[[Path], AbstractContextManager[bool]]
"""Breaks a file or directory until the block ends; yields whether it could."""


@contextmanager
def _disk(directory: Path) -> Iterator[bool]:
    directory.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", SIZE_OF_A_DISK, "tmpfs", directory], capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", directory], check=True)


def _full(but_for: int) -> Fault:
    @contextmanager
    def full(directory: Path) -> Iterator[bool]:
        ballast = directory / "ballast"
        room = shutil.disk_usage(directory).free
        ballast.write_bytes(b"\0" * max(0, room - but_for))
        try:
            yield True
        finally:
            ballast.unlink()

    return full


@contextmanager
def _read_only(directory: Path) -> Iterator[bool]:
    subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
    try:
        yield True
    finally:
        subprocess.run(["mount", "-o", "remount,rw", directory], check=True)


def warehouse(stage: Stage) -> Path:
    """The warehouse's file."""
    return Path(str(sa.make_url(stage.warehouse_url).database))


FOLDERS: dict[str, Callable[[Stage], Path]] = {
    "the warehouse": lambda stage: warehouse(stage).parent,
    "what is published": lambda stage: warehouse(stage).parent / "published",
    "Dagster's home": lambda stage: stage.directory / "dagster",
}


def _on_a_disk(directory: Callable[[Stage], Path], fault: Fault, *, is_loaded: bool) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        with _disk(directory(stage)) as is_there:
            if not is_there:
                stage.verdict.may_miss = True
                return
            if is_loaded:
                _load(stage)
            with fault(directory(stage)) as stage.verdict.fired:
                stage.judge(stage.run(*stage.backfill, *["--refresh"] * is_loaded))
            stage.judge_healed()

    return play


def _load(stage: Stage) -> None:
    ended = stage.run(*stage.backfill)
    assert ended.code == 0, ended.output


def _locked(stage: Stage) -> None:
    """Another program has the warehouse open for writing, from before the command until after it."""
    _load(stage)
    with duckdb.connect(str(warehouse(stage))) as connection:
        connection.execute("begin")
        # The warehouse cannot be read meanwhile, so only the exit code is judged.
        ended = stage.run(*stage.backfill, "--refresh")
        stage.verdict.fired = True
    if ended.code == 0:
        stage.verdict.silent.append("backfill: exit code 0, though the warehouse was locked throughout")
    stage.judge_healed()


def _locked_record(name: str) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        _load(stage)
        path = next((stage.directory / "dagster").rglob(name))
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("begin exclusive")
        try:
            ended = stage.run(*stage.backfill, "--refresh")
            stage.judge(ended)
            stage.verdict.fired = True
        finally:
            connection.close()
        stage.judge_healed()

    return play


def _flip(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(8):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def _blank(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    used = [begin for begin in range(0, len(content), _PAGE) if any(content[begin : begin + _PAGE])]
    begin = dice.choice(used)
    content[begin : begin + _PAGE] = bytes(len(content[begin : begin + _PAGE]))
    path.write_bytes(content)


def _cut(path: Path, dice: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path, dice: random.Random) -> None:
    path.write_bytes(b"")


def _garble(path: Path, dice: random.Random) -> None:
    path.write_bytes(b"not a database file\n" * 480)


DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "eight bits flipped": _flip,
    "a page zeroed": _blank,
    "cut in half": _cut,
    "empty": _empty,
    "garbage": _garble,
}


def _damaged_warehouse(damage: Callable[[Path, random.Random], None], seed: str) -> Callable[[Stage], None]:
    """The damage is reported, the published copy stays intact, and the warehouse can be restored from it."""

    def play(stage: Stage) -> None:
        _load(stage)
        published = stage.stored()
        path = warehouse(stage)
        before = path.read_bytes()
        damage(path, random.Random(seed))
        stage.verdict.fired = path.read_bytes() != before
        ended = stage.run(*stage.backfill, "--refresh")
        status = stage.run("status", is_impatient=False)
        stage.verdict.wrong += [
            f"after the warehouse was damaged: {sentence}" for sentence in stage.published_differences(published)
        ]
        # Exit code 0 is right if nothing stored was damaged, or what was has been rewritten.
        if ended.code == 0 and not stage.is_readable():
            stage.verdict.silent.append(f"backfill: exit code 0, status: {status.code}, but the warehouse is damaged")
        restored = stage.run("restore", is_impatient=False)
        if restored.code not in (0, 1):
            stage.verdict.lost.append(f"restore: exit code {restored.code}: {restored.output[-300:]!r}")
        stage.judge_healed()

    return play


def _damaged_file(pattern: str, damage: Callable[[Path, random.Random], None], seed: str) -> Callable[[Stage], None]:
    """A published file or one of Dagster's is damaged: the next load that changes anything repairs everything."""

    def play(stage: Stage) -> None:
        _load(stage)
        dice = random.Random(seed)
        paths = sorted(path for path in stage.directory.glob(pattern) if path.is_file())
        path = dice.choice(paths)
        before = path.read_bytes()
        damage(path, dice)
        stage.verdict.fired = path.read_bytes() != before
        stage.judge(stage.run(*stage.backfill, "--refresh"))
        if "dagster" in pattern:
            shutil.rmtree(stage.directory / "dagster")
        stage.judge_healed("--refresh")

    return play


def cases(seed: int) -> Iterator[Case]:
    """Each fault of a disk, and each file damaged in each way."""
    for name, directory in FOLDERS.items():
        for but_for in (0, 64 * KB, 1024 * KB):
            for is_loaded in (False, True):
                words = f"{name} on a disk with {but_for // KB} KB left, {'loaded' if is_loaded else 'new'}"
                play = _on_a_disk(directory, _full(but_for), is_loaded=is_loaded)
                yield Case(
                    "storage",
                    words,
                    play,
                    has_home=False,
                    is_quick=(name, but_for, is_loaded) == ("the warehouse", 64 * KB, True),
                )
        for is_loaded in (False, True):
            words = f"{name} on a read-only disk, {'loaded' if is_loaded else 'new'}"
            yield Case("storage", words, _on_a_disk(directory, _read_only, is_loaded=is_loaded), has_home=False)
    yield Case("storage", "the warehouse locked by another program", _locked)
    for record in ("runs.db", "index.db", "schedules.db"):
        yield Case("storage", f"Dagster's {record} locked by another program", _locked_record(record))
    for number, (way, damage) in enumerate(DAMAGE.items()):
        for again in range(2):
            dice = f"{seed}/storage/{number}/{again}"
            yield Case(
                "storage",
                f"the warehouse: {way} ({again})",
                _damaged_warehouse(damage, dice),
            )
        for what, pattern in (
            ("the snapshot", "warehouse/published/devin_sessions.duckdb"),
            ("a Parquet file", "warehouse/published/parquet/**/*.parquet"),
            ("Dagster's record of runs", "dagster/**/runs.db"),
            ("Dagster's index", "dagster/**/index.db"),
            ("a file of Dagster's", "dagster/**/*.db"),
        ):
            dice = f"{seed}/storage/{number}/{what}"
            yield Case("storage", f"{what}: {way}", _damaged_file(pattern, damage, dice))
