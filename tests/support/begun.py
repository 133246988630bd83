"""Begins `devin-sessions` commands that a test stops, or acts on while they run."""

import os
from pathlib import Path

from tests.support.forks import Command, make_home
from tests.support.waiting import wait_until
from tests.support.world import World


def begin(world: World, *arguments: str, output: Path | None = None) -> Command:
    """A command in a forked process, with a Dagster home that was opened before. The caller waits for its end.

    Standard output goes to `output`, by default to a new file in the world's directory.
    """
    home = world.directory / "dagster"
    if not home.exists():
        make_home(home)
    number = len(list(world.directory.glob("output-*")))
    return Command(
        arguments, os.environ, output or world.directory / f"output-{number}", world.directory / f"errors-{number}"
    )


def wait_until_shown(world: World, text: str) -> None:
    """Wait until a command that was begun here has shown this on standard output."""
    wait_until(lambda: any(text in path.read_text("utf-8") for path in world.directory.glob("output-*")), text)
