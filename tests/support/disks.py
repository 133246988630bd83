"""Small disks: file systems in memory. The test is skipped where mounting is not permitted, as in most containers."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

KB = 1024


@dataclass
class Disk:
    """A separate file system that can be filled up or made read-only."""

    directory: Path

    @contextmanager
    def full(self, but_for: int = 0) -> Iterator[None]:
        """Leave only `but_for` bytes free until the block ends."""
        ballast = self.directory / "ballast"
        room = os.statvfs(self.directory)
        ballast.write_bytes(b"\0" * (room.f_bavail * room.f_bsize - but_for))
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Refuse writes until the block ends."""
        subprocess.run(["mount", "-o", "remount,ro", self.directory], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", self.directory], check=True)


@contextmanager
def disk_at(directory: Path, options: str = "size=24m") -> Iterator[Disk]:
    """A new file system at `directory`, unmounted when the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.strip()}")
    try:
        yield Disk(directory)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
