"""Atomic replacement of published files: all or nothing, and with the permissions kept."""

import io
import os
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
    try:
        with io.BufferedWriter(io.FileIO(unfinished, "w", opener=_open_private)) as file:
            yield file
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
