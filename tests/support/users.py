"""Another user of this machine. The test is skipped where this process may not become one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OTHER = 4242
"""The id of a user who has no name."""


@contextmanager
def as_another_user() -> Iterator[None]:
    """Let this process do what `OTHER` may, until the block ends."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    os.setegid(OTHER)
    os.seteuid(OTHER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextmanager
def open_directory() -> Iterator[Path]:
    """A new directory that every user can reach and read, unlike those of pytest."""
    directory = Path(tempfile.mkdtemp(prefix="open-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
