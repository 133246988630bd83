"""Publishing one version of the tables and the report, such that no reader ever sees half of one.

Several runs may publish at once, also from several machines, if each takes less than a day: each writes files of its
own, and the last to replace the manifest has the whole word. A run that finds that another has published later data
meanwhile gives way. Between looking and replacing there is a moment in which it can't know; should the earlier data win
then, they win as a whole, `status` says that they are behind, and the next publishing puts the later ones back.
"""

import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import version as release_of
from pathlib import Path

import sqlalchemy as sa

from pipelines.ledger import read
from pipelines.manifest import (
    LIST,
    LISTS,
    REPORT,
    File,
    Manifest,
    path_of,
    read_manifest,
    report_path,
    superseded,
)
from pipelines.published_before import refuse_another_warehouse
from resources.database import Database
from resources.files import replacing
from resources.publish_errors import PublishError
from resources.publish_places import MANIFEST, Place, explained
from warehouse import parquet, reads


@dataclass(frozen=True)
class Published:
    """What became of publishing. `manifest` is that of the version now there, which is later data if not `is_ours`.

    not_removed: why files of earlier versions could not be removed, or None.
    """

    manifest: Manifest
    is_ours: bool
    uploaded: int = 0
    kept: int = 0
    removed: int = 0
    not_removed: PublishError | None = None


@dataclass
class _Made:
    """The files of a new version: all by name, those to be uploaded, and the digest of what is in them."""

    files: list[File] = field(default_factory=list)
    new: dict[str, Path] = field(default_factory=dict)
    readings: str = ""


def publish(
    place: Place,
    source: Database,
    *,
    as_of: datetime,
    now: datetime,
    run_id: str,
    report: Callable[[sa.Connection], str] | None = None,
    warehouse: str = "",
) -> Published:
    """Publish everything in `source` and the page that `report` makes of it.

    as_of: an instant before which everything in `source` was stored.
    warehouse: its name in messages, if `source` is only a copy of it.

    Raises PublishError, ForeignManifest, OSError if this machine has no room for the files, and what reading a
    warehouse may raise.
    """
    with explained(f"read {place.address}", "Everything is stored in the warehouse."):
        before = read_manifest(place)
        there = place.sizes()
    kept = _what_stays(before)
    version = f"{as_of:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="devin-sessions-") as directory:

        def make(connection: sa.Connection) -> tuple[_Made, bytes | None]:
            parts = parquet.parts(connection)
            if before:
                refuse_another_warehouse(place, before, connection, warehouse or source.name)
            made = _make(connection, parts, Path(directory), version, before, there)
            made.readings = reads.readings_digest(connection)
            return made, report(connection).encode() if report else None

        made, page = read(source, make)
        for name, path in made.new.items():
            _put(place, name, path.read_bytes(), kept)
    named = {file.path: file.bytes for file in made.files}
    if page:
        _put(place, report_path(version), page, kept)
        named[report_path(version)] = len(page)
    manifest = Manifest(
        version=version,
        as_of=as_of,
        published_at=now,
        readings=made.readings,
        release=release_of("devin-session-metrics"),
        run_id=run_id,
        folder=place.folder,
        report=report_path(version) if page else None,
        files=made.files,
    )
    with explained(f"read {place.address}", kept):
        latest = read_manifest(place)
        there = place.sizes()
    if latest and latest != before and latest.as_of > as_of:  # another run has published since this one began
        return Published(latest, is_ours=False, uploaded=len(made.new))
    _refuse_missing(place, named, there, kept)
    gone = superseded(latest, there, {*named}, now)
    manifest = replace(manifest, superseded=[each for each in gone if not each.is_over(now)])
    for table in parquet.published_tables():
        _put(place, f"{LISTS}/{table}/{LIST}", manifest.list_of(table), kept)
    if page:
        _put(place, REPORT, page, kept)
    _put(place, MANIFEST, manifest.as_json(), kept)
    over = [each.path for each in gone if each.is_over(now)]
    return Published(
        manifest,
        is_ours=True,
        uploaded=len(made.new),
        kept=len(made.files) - len(made.new),
        removed=len(over),
        not_removed=_remove(place, over),
    )


def _what_stays(before: Manifest | None) -> str:
    """A sentence for a failure: what readers still have."""
    if before is None:
        return "Nothing was published there before. Everything is stored in the warehouse."
    return f"The version of {before.published_at:%Y-%m-%d %H:%M} UTC stays whole, and everything is stored."


def _put(place: Place, name: str, content: bytes, kept: str) -> None:
    with explained(f"write {place.address}/{name}", kept):
        place.put(name, content)


def _make(
    connection: sa.Connection,
    parts: list[parquet.Part],
    directory: Path,
    version: str,
    before: Manifest | None,
    there: dict[str, int],
) -> _Made:
    """Write the files that the version before lacks to `directory`."""
    made = _Made()
    for number, part in enumerate(parts):
        last = before.find(part) if before else None
        if last and there.get(last.path) != last.bytes:
            last = None
        if last and part.fingerprint and part.fingerprint == last.fingerprint:
            made.files.append(last)
            continue
        path = directory / f"{number}.parquet"
        written = parquet.write(connection, part, path, replacing)
        if last and written.sha256 == last.sha256:
            made.files.append(last)
            path.unlink()
            continue
        name = path_of(part, version)
        size = path.stat().st_size
        made.files.append(File(part.table.name, part.month, name, written.rows, size, written.sha256, part.fingerprint))
        made.new[name] = path
    return made


def _refuse_missing(place: Place, named: dict[str, int], there: dict[str, int], kept: str) -> None:
    """Raise PublishError if a file that the manifest is to name is not there with its size."""
    for path, size in named.items():
        if there.get(path) != size:
            found = f"{there[path]} bytes" if path in there else "nothing"
            raise PublishError(
                f"Could not publish to {place.address}: {path} was written with {size} bytes, and now {found} is "
                f"there. {kept} Find out what else removes or writes files there, such as a lifecycle rule, and run "
                "the same command again."
            )


def _remove(place: Place, paths: list[str]) -> PublishError | None:
    try:
        for path in paths:
            with explained(f"remove {place.address}/{path}", "The new version is published."):
                place.remove(path)
    except PublishError as error:
        return error
    return None
