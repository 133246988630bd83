"""Publishing and reading versions of a small warehouse, in this process or in one that kills itself on the way."""

import hashlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from pipelines.publishing import Published, publish
from resources.database import Database
from resources.publish_address import PublishAddress
from resources.publish_places import MANIFEST, Place, open_place
from tests.support.forks import FORKS
from warehouse import tables

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def place_at(address: str) -> Place:
    return open_place(PublishAddress.parse(address))


def published(
    address: str, source: Database, at: datetime = NOW, *, as_of: datetime | None = None, page: str = ""
) -> Published:
    """Publish what is stored, `at` this time."""
    report = (lambda _: page) if page else None
    return publish(place_at(address), source, as_of=as_of or at, now=at, run_id="run", report=report)


def restate(source: Database, count: int, month: int = 2) -> None:
    """Let every count of a month, and every sum of a week, be this one: whoever reads both sees whether they fit."""
    with source.transaction() as connection:
        day = tables.daily_sessions.c.day
        of_month = sa.extract("month", day) == month
        connection.execute(sa.update(tables.daily_sessions).where(of_month).values(sessions_count=count))
        connection.execute(sa.update(tables.weekly_sessions).values(sessions_count=count))


@dataclass(frozen=True)
class Version:
    """What a reader of a manifest and its files saw."""

    manifest: dict[str, Any]
    tables: dict[str, pa.Table]

    def counts(self, table: str) -> set[int]:
        return set(self.tables[table]["sessions_count"].to_pylist())


def read_version(address: str) -> Version | None:
    """Read a version as anyone would: first the manifest, then what it names. None if nothing is published."""
    place = place_at(address)
    content = place.read(MANIFEST)
    if content is None:
        return None
    manifest = json.loads(content)
    found: dict[str, list[pa.Table]] = {}
    for file in manifest["files"]:
        held = place.read(file["path"])
        assert held is not None, f"{file['path']} is gone"
        assert (len(held), hashlib.sha256(held).hexdigest()) == (file["bytes"], file["sha256"])
        table = pq.read_table(pa.BufferReader(held))
        assert table.num_rows == file["rows"]
        found.setdefault(file["table_name"], []).append(table)
    if manifest["report"]:
        assert place.read(manifest["report"])
    return Version(manifest, {name: pa.concat_tables(parts).replace_schema_metadata() for name, parts in found.items()})


class Publisher:
    """A process of its own that publishes; with `dies_before`, until the so many-th file would get its name."""

    def __init__(self, address: str, source: Database, at: datetime = NOW, dies_before: int = 0) -> None:
        self._process: ForkServerProcess = FORKS.Process(
            target=_publish, args=(address, source.url, at, dies_before, dict(os.environ))
        )
        self._process.start()

    def kill(self) -> None:
        assert self._process.pid
        os.kill(self._process.pid, signal.SIGKILL)

    def ended(self) -> int | None:
        """Wait for its end and return its exit code, which is minus the signal that ended it."""
        self._process.join(60)
        return self._process.exitcode


def _publish(address: str, url: str, at: datetime, dies_before: int, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    left = dies_before

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "os.rename" and dies_before and Path(str(arguments[1])).is_relative_to(address):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    published(address, Database(url=url), at)


def later(days: float) -> datetime:
    return NOW + timedelta(days=days)
