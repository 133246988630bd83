"""Where this installation keeps its data, and which `.env` files belong to it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_data_path

VARIABLE = "DEVIN_HOME"

PROJECT = Path(__file__).resolve().parents[1]
"""The directory that holds the packages: a checkout, or site-packages."""

ENV_FILE_NAME = ".env"


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
        return checked(named)
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
    if directory.exists() and not directory.is_dir():
        raise NoHome("this is a file; give a directory")
    return directory


@contextmanager
def with_a_home_directory() -> Iterator[None]:
    """Let code that only asks for the user's home directory run for a user without one, as in some containers.

    Until the block ends, HOME is then a directory that doesn't exist, so that nothing is read or written there.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"
        try:
            yield
        finally:
            del os.environ["HOME"]
    else:
        yield


def start_of_relative_paths() -> Path:
    """Where relative paths in settings start, whatever the working directory is. Raises NoHome."""
    return PROJECT if is_checkout() and not os.environ.get(VARIABLE) else home()


def env_files() -> list[Path]:
    """The `.env` files to read, the one that takes precedence first: the nearest one from the working directory
    upwards, the checkout's, the home's.

    The first belongs to whoever made that directory, so it is left out if that is another user: it could send the key
    to another address.
    """
    nearest = _nearest_env_file()
    found = [nearest] if nearest and not _is_foreign(nearest) else []
    if is_checkout():
        found.append(PROJECT / ENV_FILE_NAME)
    with suppress(NoHome):
        found.append(home() / ENV_FILE_NAME)
    return [path for path in dict.fromkeys(found) if os.path.isfile(path)]  # noqa: PTH113


def foreign_env_file() -> Path | None:
    """The nearest `.env` from the working directory upwards if it is not read because another user owns it."""
    nearest = _nearest_env_file()
    return nearest if nearest and nearest not in env_files() else None


def owner(path: Path) -> str:
    """Who owns a file, by name if the user has one."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError, OSError):
        return f"the user with id {path.stat().st_uid}"


def _nearest_env_file() -> Path | None:
    try:
        start = Path.cwd()
    except FileNotFoundError:  # it was deleted
        return None
    candidates = (directory / ENV_FILE_NAME for directory in (start, *start.parents))
    # Unlike Path.is_file, this is False where a directory may not be searched.
    return next((path for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113


def _is_foreign(path: Path) -> bool:
    if os.name != "posix":
        return False
    sudo_user = os.environ.get("SUDO_UID") if os.geteuid() == 0 else None
    return str(path.stat().st_uid) not in ("0", str(os.geteuid()), sudo_user)
