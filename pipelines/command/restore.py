"""Rebuilds a damaged warehouse, from its own rows if they can be read, otherwise from its published copies."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tenacity

from pipelines.assets.published_snapshot import publishing
from pipelines.ledger import missing_days
from pipelines.partitions import closed_days, daily_partitions, format_days
from pipelines.settings import Settings
from resources.database import Database
from resources.database_errors import WarehouseError, WarehouseLocked
from resources.file_errors import obstacle
from resources.intact import Found, Reader
from warehouse import migrations, parquet, restoring
from warehouse.restoring import Source
from warehouse.snapshot import BOOKKEEPING, find_bookkeeping


class NotRestored(Exception):
    """Nothing was restored, and the warehouse is unchanged. The message says why and what to do."""


@dataclass(frozen=True)
class Done:
    """Messages for the user: what was done, and what could not be recovered or must be loaded again."""

    done: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def restore(settings: Settings) -> Done:
    """Rebuild the warehouse if it is damaged or missing, and keep the damaged file under another name.

    Nothing changes until the new file replaces the old one, so a restore can be killed and run again. Raises
    NotRestored, WarehouseLocked, WarehouseError or UnfitWarehouse.
    """
    database, snapshot = settings.warehouse, settings.published_snapshot
    if snapshot is None:
        raise NotRestored(
            f"The warehouse {database.name} is on a server. Restore it from your own backup, such as one made with "
            "pg_dump: docs/deployment.md says how."
        )
    path = database.path
    try:
        with (
            publishing(snapshot.parent),
            tempfile.TemporaryDirectory(prefix=_PREFIX, dir=path.parent) as directory,
            Reader() as reader,
        ):
            _clean_up_after_kill(path, Path(directory))
            return _restore(settings, database, snapshot, Path(directory), reader)
    except OSError as error:
        found = obstacle(error, path)
        raise WarehouseError(
            f"The warehouse {path} could not be restored: {found.why}. It is unchanged. {found.fix} and run the same "
            "command again."
        ) from error


def _restore(settings: Settings, database: Database, snapshot: Path, directory: Path, reader: Reader) -> Done:
    path, before = database.path, _state_of(database.path)
    found = Found(problem="there is no such file")
    sources: list[Source] = []
    if before:
        with _locked(database):
            pass  # no run has it open
        found, sources = _examine(path, directory, reader)
        if not found.why:
            with database.transaction(read_only=True) as connection:
                find_bookkeeping(connection)
                migrations.refuse_unfit(connection)
            return _check_published(path, snapshot, reader)
    of_snapshot = _source("the published copy", snapshot, reader.read(snapshot)) if snapshot.exists() else None
    of_parquet = restoring.parquet_source(parquet.directory_beside(snapshot))
    sources += [source for source in (of_snapshot, of_parquet) if source]
    if not any(source.whole for source in sources):
        raise NotRestored(
            f"The warehouse {path} can't be restored ({found.why}): {snapshot.parent} has no published copy that can "
            f"be read. Copy a backup of {snapshot.name} there and run the same command again; or move both away and "
            "load history again: devin-sessions backfill --missing"
        )
    new = Database(url=Database.url_of(directory / "new.duckdb"))
    days = closed_days(daily_partitions(settings))
    with new.transaction() as connection:
        restored = restoring.restore(connection, sources, settled_after_days=settings.settled_after_days)
        missing = sorted({d for each in settings.dimensions for d in missing_days(connection, settings, each, days)})
    if why := reader.read(new.path).why:
        raise NotRestored(
            f"The restored file can't be read ({why}), so the warehouse {path} was left unchanged. The disk or the "
            "memory of this machine may be failing."
        )
    kept = _swap(database, new.path, before)
    names = list(dict.fromkeys(restored.sources.values()))
    as_of = f"as of {restored.as_of:%Y-%m-%d %H:%M} UTC" if restored.as_of else "without any day"
    done = [f"Restored the warehouse {path} from {' and '.join(names)}, {as_of}. What was wrong: {found.why}"]
    if kept:
        done.append(f"The damaged file is kept as {kept}. Delete it when you no longer need it.")
    lost = [f"Could not be recovered: {part} ({why})" for part, why in restored.lost.items()]
    if restored.dropped:
        lost.append(f"Left out, because their counts are incomplete: {format_days(sorted(restored.dropped))}.")
    if names != [_ITSELF] and restored.as_of:
        first = max(settings.devin_start_date, restored.as_of.date() - timedelta(days=settings.devin_lookback_days))
        if days and first <= days[-1]:
            done.append(
                "Days that were read after that are missing or out of date. To read the last ones again: "
                f"devin-sessions backfill {first} {days[-1]} --refresh"
            )
    if missing:
        sentence = f"Not loaded: {format_days(missing)}. To load: devin-sessions backfill --missing"
        (lost if lost else done).append(sentence)
    return Done(done, lost)


_ITSELF = "its own rows"
_PREFIX = ".restoring-"


def _examine(path: Path, directory: Path, reader: Reader) -> tuple[Found, list[Source]]:
    """What is wrong with the file, and what can be read from it: with its write-ahead log, and without."""
    found = reader.read(path)
    sources = [_source(_ITSELF, _link(path, directory / "whole.duckdb", with_log=True), found)]
    if not found.why:
        keys = directory / "keys.duckdb"
        shutil.copyfile(path, keys)
        if _log_of(path).exists():
            shutil.copyfile(_log_of(path), _log_of(keys))
        found = reader.read(keys, with_keys=True)
        for file in (keys, _log_of(keys)):
            file.unlink(missing_ok=True)
    elif _log_of(path).exists():
        without = _link(path, directory / "without_log.duckdb", with_log=False)
        sources.append(_source("its own rows before the last run", without, reader.read(without)))
    return found, [source for source in sources if source]


def _source(name: str, file: Path, found: Found) -> Source | None:
    """The tables that can be read from a DuckDB file, if any of them are ours. Raises NewerWarehouse."""
    if found.problem:
        return None
    version = migrations.VERSION
    apart = f"{BOOKKEEPING}."  # where a snapshot has some of the tables
    whole = frozenset(table.removeprefix(apart) for table in found.whole)
    damaged = {table.removeprefix(apart): why for table, why in found.damaged.items()}
    if "warehouse_version" not in damaged:
        with Database(url=Database.url_of(file)).transaction(read_only=True) as connection:
            find_bookkeeping(connection)
            version = migrations.version(connection)
            migrations.refuse_newer(version)
    if not version:
        return None  # somebody else's file
    return Source(name, whole, file=file, version=version, problems=damaged)


def _check_published(path: Path, snapshot: Path, reader: Reader) -> Done:
    done = [f"Nothing to restore: all of the warehouse {path} can be read."]
    if snapshot.exists() and (why := reader.read(snapshot).why):
        kept = _damaged_name(snapshot)
        snapshot.rename(kept)
        done.append(
            f"The published copy is damaged ({why}) and was renamed to {kept}. To publish a new one: "
            "devin-sessions backfill --missing"
        )
    return Done(done)


def _swap(database: Database, new: Path, before: os.stat_result | None) -> Path | None:
    """Replace the old file, if there is one, with the new one. Returns where the old one is kept."""
    path = database.path
    with _locked(database):
        if _identity(_state_of(path)) != _identity(before):
            raise NotRestored(f"Another process wrote to the warehouse {path} meanwhile. Run the same command again.")
        kept = None
        if before:
            new.chmod(before.st_mode & 0o777)
            kept = _damaged_name(path)
            try:
                kept.hardlink_to(path)  # so that the old file stays in place until the new one replaces it
            except OSError:
                shutil.copy2(path, kept)
            if _log_of(path).exists():
                _log_of(path).rename(_log_of(kept))
        new.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return kept


def _clean_up_after_kill(path: Path, own: Path) -> None:
    """Undo the renames of a restore that was killed, and remove its directory; `own` is the one of this restore."""
    for directory in path.parent.glob(f"{_PREFIX}*"):
        if directory != own:
            shutil.rmtree(directory)
    for kept in path.parent.glob(f"{path.name}.damaged-*"):
        if path.exists() and kept.samefile(path):
            if _log_of(kept).exists():
                _log_of(kept).rename(_log_of(path))
            kept.unlink()


@contextmanager
def _locked(database: Database) -> Iterator[None]:
    """Keeps other processes from opening the file, if it exists, until the block ends. Raises WarehouseLocked."""
    if not database.path.exists():
        yield
        return
    with database.path.open("r+b") as file:
        try:
            tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(BlockingIOError),
                wait=tenacity.wait_random_exponential(0.02, 0.5),
                stop=tenacity.stop_after_delay(database.lock_timeout_seconds),
                reraise=True,
            )(fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the lock that DuckDB takes
        except BlockingIOError:
            raise WarehouseLocked(
                f"The warehouse {database.name} is locked by another process, and still was after "
                f"{database.lock_timeout_seconds:g} s. Close whatever has it open (a DuckDB shell, a notebook, a run) "
                "and run the same command again."
            ) from None
        yield


def _link(path: Path, to: Path, *, with_log: bool) -> Path:
    """Link the file, or copy it if that fails, to the path `to`, with or without its write-ahead log."""
    for source, target in (
        (path, to),
        *([(_log_of(path), _log_of(to))] if with_log and _log_of(path).exists() else []),
    ):
        try:
            target.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, target)
    return to


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _damaged_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}")


def _state_of(path: Path) -> os.stat_result | None:
    return path.stat() if path.exists() else None


def _identity(state: os.stat_result | None) -> tuple[int, int, int] | None:
    return (state.st_ino, state.st_size, state.st_mtime_ns) if state else None
