"""Atomic replacement of published files: all or nothing, and with the permissions kept."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, like: Path | None = None) -> Iterator[BinaryIO]:
    """A file that replaces `path` when the block ends; if the block raises, `path` is left alone.

    Until then it is at the file's own `name`, where it can be read after a flush.

    It gets the permissions of the file it replaces or, if there is none, of `like`; without either, only its owner has
    access. Only one process at a time may replace a file. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")  # overwrites what a killed run left
    file = io.BufferedWriter(io.FileIO(unfinished, "w", opener=_open_private))
    with _put_in_place(file, unfinished, path, like):
        yield file


@contextmanager
def replacing_beside_others(
    path: Path, like: Path | None = None, unfinished_in: Path | None = None
) -> Iterator[BinaryIO]:
    """As `replacing`, for several processes at once and in a directory that other users may write to.

    The directory must exist, and so must the one of the unfinished file, if that is to be another. Nobody knows the
    name of the unfinished file beforehand, and a killed process leaves it: a full stop, the name of `path`, a full
    stop and eight characters.
    """
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=unfinished_in or path.parent)
    file = os.fdopen(number, "wb")
    with _put_in_place(file, Path(name), path, like):
        yield file


@contextmanager
def _put_in_place(file: BinaryIO, unfinished: Path, path: Path, like: Path | None) -> Iterator[None]:
    try:
        with file:
            yield
            file.flush()
            os.fsync(file.fileno())
        model = path if path.exists() else like
        if model:
            unfinished.chmod(model.stat().st_mode & 0o777)
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _open_private(path: str, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except PermissionError:
        if not Path(path).exists():
            raise
        Path(path).unlink()  # another user's killed run left it
        return os.open(path, flags, 0o600)
