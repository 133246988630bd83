"""Small disks: file systems in memory. Where those may not be mounted, as in most containers, the test is skipped."""

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
    """A file system of its own, as full and as writable as it is told to be."""

    folder: Path

    @contextmanager
    def full(self, but_for: int = 0) -> Iterator[None]:
        """Leave only so many bytes of room meanwhile."""
        ballast = self.folder / "ballast"
        room = os.statvfs(self.folder)
        ballast.write_bytes(b"\0" * (room.f_bavail * room.f_bsize - but_for))
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Take no writes meanwhile."""
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", self.folder], check=True)


@contextmanager
def disk_at(folder: Path, options: str = "size=24m") -> Iterator[Disk]:
    """A new file system at `folder`, gone in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
