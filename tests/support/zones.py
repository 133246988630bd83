"""Time zones with rules of a test's own."""

import zoneinfo
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from struct import pack


@contextmanager
def extra_zone(directory: Path, name: str, hours: Sequence[int], changes: Sequence[str]) -> Iterator[None]:
    """This process knows a zone that is `hours[0]` ahead of UTC, and as far as the next at each of `changes` (UTC)."""
    path = directory / name
    path.parent.mkdir(parents=True)
    path.write_bytes(_compiled(hours, changes))
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[str(directory), *before])
    try:
        yield
    finally:
        zoneinfo.reset_tzpath(to=before)


def _compiled(hours: Sequence[int], changes: Sequence[str]) -> bytes:
    """A file in the format of RFC 9636, version 1."""
    at = [int(datetime.fromisoformat(change).replace(tzinfo=UTC).timestamp()) for change in changes]
    header = b"TZif" + bytes(16) + pack(">6l", 0, 0, 0, len(at), len(hours), 4)
    kinds = b"".join(pack(">lbB", hour * 3600, 0, 0) for hour in hours)
    return header + pack(f">{len(at)}l", *at) + bytes(range(1, len(at) + 1)) + kinds + b"TST\0"
