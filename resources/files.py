"""How a published file is replaced: as a whole or not at all, and whoever was let in stays so."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, like: Path | None = None) -> Iterator[BinaryIO]:
    """What is written to the file takes the place of `path` when the block ends; if it raises, `path` stays.

    Until then it is under the file's own `name`, where it can be read after a flush.

    The rights are those of the file before or, for a new one, of `like`; else it is the owner's alone. One process at
    a time. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")  # what a killed run left is overwritten
    try:
        with io.BufferedWriter(io.FileIO(unfinished, "w", opener=_for_the_owner)) as file:
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


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
