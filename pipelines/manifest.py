"""The manifest of what is published: the files of one version, and those of earlier ones that are still there.

A version's files have names of its own, with the version in them, and none is ever written a second time. The manifest
names every file of the latest version, and it is replaced last, in one request. So whoever reads the manifest, and then
the files that it names, reads one whole version: the files of a version stay for at least a day, and for two versions,
after another has replaced it.

This needs no lock, no conditional request and no renaming, which buckets lack, and no listing, which readers would have
to interpret. Directories of whole versions would do as well, but each would hold, and every night upload, every month
again; a table format such as Iceberg needs a catalog, and a client for it in each reader.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from resources.publish_places import FILES, MANIFEST, Place
from warehouse.parquet import Part, published_tables

LISTS, LIST, REPORT = "lists", "files.txt", "report.html"
GRACE, GRACE_VERSIONS = timedelta(days=1), 2

# Many clients ask a bucket for a file's size, and then for so many bytes: of two versions of one size they see one.
_MULTIPLE = 65_536
_VERSION = r"\d{8}T\d{6}Z-[0-9a-f]{8}"


class ForeignManifest(Exception):
    """There is a manifest that this release can't have written. The message is for the user."""


@dataclass(frozen=True)
class File:
    """A file of a version. `month` is its first day, None for a whole table; `path` starts at the manifest."""

    table_name: str
    month: date | None
    path: str
    rows: int
    bytes: int
    sha256: str
    fingerprint: str | None


@dataclass(frozen=True)
class Superseded:
    """A file that the latest version doesn't name: since when, and how many versions were published since."""

    path: str
    since: AwareDatetime
    versions: int = 0

    def is_over(self, now: datetime) -> bool:
        """Whether nobody may still be reading it."""
        return self.versions >= GRACE_VERSIONS and now - self.since >= GRACE


@dataclass(frozen=True)
class Manifest:
    """One version. `as_of` is an instant at or before which everything in it was stored; `folder` is the address.

    readings: a digest of which readings of the days are in it, whatever the clocks said.
    """

    version: str
    as_of: AwareDatetime
    published_at: AwareDatetime
    release: str
    run_id: str
    folder: str
    report: str | None
    files: list[File]
    superseded: list[Superseded] = field(default_factory=list)
    readings: str = ""
    format: Literal[1] = 1

    @property
    def paths(self) -> set[str]:
        """Every file that it names."""
        return {file.path for file in self.files} | ({self.report} if self.report else set())

    def find(self, part: Part) -> File | None:
        """The file that holds this part, if there is one."""
        wanted = (part.table.name, part.month)
        return next((file for file in self.files if (file.table_name, file.month) == wanted), None)

    def list_of(self, table: str) -> bytes:
        """The addresses of a table's files, one a line."""
        chosen = [f"{self.folder}/{file.path}\n" for file in self.files if file.table_name == table]
        return "".join(chosen).encode()

    def as_json(self) -> bytes:
        """Its content as a file, filled up with spaces to a multiple of _MULTIPLE."""
        content = json.dumps(asdict(self), default=lambda moment: moment.isoformat(), indent=1).encode()
        return content + b" " * (-(len(content) + 1) % _MULTIPLE) + b"\n"


_PARSED = TypeAdapter(Manifest)


def path_of(part: Part, version: str) -> str:
    """The name of a new file for this part."""
    return f"{FILES}/{part.name.removesuffix('.parquet')}.{version}.parquet"


def report_path(version: str) -> str:
    """The name of a new report."""
    return f"{FILES}/report.{version}.html"


def superseded(latest: Manifest | None, there: Iterable[str], named: set[str], now: datetime) -> list[Superseded]:
    """The files among `there` that are this project's and not `named`, such as those of a killed run."""
    before = {each.path: each for each in latest.superseded} if latest else {}
    found = []
    for path in sorted(path for path in there if is_ours(path) and path not in named):
        known = before.get(path)
        found.append(Superseded(path, known.since, known.versions + 1) if known else Superseded(path, now))
    return found


def is_ours(path: str) -> bool:
    """Whether only this project gives files such names, finished or, in a directory, not."""
    return re.fullmatch(_ours(), path) is not None


def _ours() -> str:
    finished = (
        rf"(?:(?:{'|'.join(published_tables())})(?:/\d{{4}}-\d\d)?\.{_VERSION}\.parquet|report\.{_VERSION}\.html)"
    )
    names = rf"[\w-]+\.{_VERSION}\.(?:parquet|html)|{re.escape(MANIFEST)}|{re.escape(REPORT)}|{re.escape(LIST)}"
    unfinished = rf"\.(?:{names})\.\w{{8}}"
    return rf"{FILES}/(?:{finished}|{unfinished})"


def read_manifest(place: Place) -> Manifest | None:
    """The manifest of a place, None if nothing was published there. Raises OSError or ForeignManifest."""
    content, last = place.read(MANIFEST), None
    while content is not None and content != last:
        try:
            return _PARSED.validate_json(content, strict=True, extra="forbid")
        except ValidationError:
            last, content = content, place.read(MANIFEST)  # a longer one may have replaced it
    if content is not None:
        raise ForeignManifest(
            f"{place.address}/{MANIFEST} was not written by this release, so nothing is published there. If another "
            "program or a newer release writes there, set DEVIN_PUBLISH_URL to a folder of its own; if the file is "
            "damaged, remove it and run the same command again."
        )
    return None
