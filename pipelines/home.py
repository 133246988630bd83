"""Where this installation keeps its data, and where relative paths start."""

import os
from pathlib import Path

from platformdirs import user_data_path

from resources.file_errors import obstacle

VARIABLE = "DEVIN_HOME"

PROJECT = Path(__file__).resolve().parents[1]
"""The directory that holds the packages: a checkout, or site-packages."""


class NoHome(ValueError):
    """There is no usable directory for data. The message is for the user."""


def is_checkout() -> bool:
    """Whether the packages are in a checkout of the project rather than installed."""
    return (PROJECT / "pyproject.toml").is_file()


def home() -> Path:
    """The directory for data: DEVIN_HOME, otherwise `data` in the checkout, otherwise the user's data directory.

    It may not exist yet. Raises NoHome.
    """
    if named := os.environ.get(VARIABLE):
        try:
            return checked(named)
        except NoHome as error:
            raise NoHome(f"{VARIABLE}={named!r} is refused: {error}.") from None
    if is_checkout():
        return PROJECT / "data"
    try:
        return user_data_path("devin-sessions", appauthor=False)
    except RuntimeError:
        raise NoHome(
            f"You have no home directory on this machine: set {VARIABLE} to a directory for the data."
        ) from None


def checked(named: str) -> Path:
    """A value of DEVIN_HOME as a path, with `~` expanded. Raises NoHome if that is not absolute."""
    try:
        directory = Path(named).expanduser()
    except RuntimeError:
        raise NoHome("there is no such user or home directory") from None
    if not directory.is_absolute():
        raise NoHome("not an absolute path")
    try:
        if directory.exists() and not directory.is_dir():
            raise NoHome("this is a file; give a directory")
    except OSError as error:
        raise NoHome(obstacle(error, directory).why) from None
    return directory


def start_of_relative_paths() -> Path:
    """Where relative paths in settings start, whatever the working directory is. Raises NoHome."""
    return PROJECT if is_checkout() and not os.environ.get(VARIABLE) else home()
