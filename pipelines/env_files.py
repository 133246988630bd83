"""Which `.env` files fill in what the environment lacks."""

import os
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from dotenv import dotenv_values, load_dotenv
from dotenv.parser import parse_stream

from pipelines.home import PROJECT, NoHome, home, is_checkout
from resources.file_errors import obstacle, owner

_NAME = ".env"
_ENCODING = "utf-8-sig"  # with or without a byte order mark
_READ_ELSEWHERE = ("DAGSTER_HOME", "MOTHERDUCK_TOKEN", "motherduck_token")


class EnvFileRefused(ValueError):
    """A `.env` file can't be read, or a line of it. The message is for the user and shows no value."""


def read(names: Iterable[str]) -> None:
    """Let the `.env` files fill in what the environment lacks, and take blanks and line ends off the values of `names`.

    A file with Windows' line ends, given to a container as it is, leaves a carriage return at the end of each value.
    Raises EnvFileRefused, after the lines that can be read: how to say so may be among them.
    """
    refused: EnvFileRefused | None = None
    for path in env_files():
        try:
            _refuse_unreadable(path)
        except EnvFileRefused as error:
            refused = refused or error
        with suppress(OSError, UnicodeDecodeError):
            load_dotenv(path, override=False, encoding=_ENCODING)
    if refused:
        raise refused
    for name in (*names, *_READ_ELSEWHERE):
        if (value := os.environ.get(name)) is not None:
            os.environ[name] = value.strip()


def _refuse_unreadable(path: Path) -> None:
    """Raise EnvFileRefused if a line of this file can't be read: it would be left out without a word."""
    try:
        with path.open(encoding=_ENCODING) as file:
            wrong = [binding.original.line for binding in parse_stream(file) if binding.error]
    except UnicodeDecodeError:
        raise EnvFileRefused(f"{path} is not text in UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        found = obstacle(error, path)
        raise EnvFileRefused(f"{path} cannot be read: {found.why}. {found.fix}.") from None
    if wrong:
        where = f"line {wrong[0]} is" if len(wrong) == 1 else f"lines {', '.join(map(str, wrong))} are"
        raise EnvFileRefused(f"{path}: {where} not of the form NAME=value. Fix it, or begin it with # to leave it out.")


def warnings() -> list[str]:
    """What to say of the files: those that other users of this machine can read, and one that is not read."""
    found = [
        f"Other users of this machine can read {path} and the key in it. To prevent that: chmod 600 {path}"
        for path in env_files()
        if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]
    nearest = _nearest()
    if nearest and nearest not in env_files():
        found.append(
            f"{nearest} is not read: it belongs to {owner(nearest)}, and could send your key elsewhere. If you trust "
            "it, copy it to a directory of your own and run the command there."
        )
    return found


def unknown_names(settings: Collection[str]) -> list[str]:
    """What to say of variables that look like one of these `settings` and are none: a mistyped one has no effect.

    They are those that begin with DEVIN_, which may also be another program's, and those nearly called like a setting.
    Call `read` first.
    """
    places = {name: path for path in reversed(env_files()) for name in dotenv_values(path, encoding=_ENCODING)}
    found = []
    for name in sorted(name for name, value in os.environ.items() if value and name not in settings):
        is_ours = name.upper().startswith("DEVIN_")
        near = _nearest_name(name.upper(), settings, 0.8 if is_ours else 0.9)
        if near or is_ours:
            meant = f"Did you mean {near}?" if near else "It has no effect."
            place = places.get(name, "the environment")
            found.append(f"{name} is set in {place}, but there is no such setting. {meant}")
    return found


def _nearest_name(name: str, settings: Collection[str], similarity: float) -> str | None:
    own = [setting for setting in settings if setting.startswith(("DEVIN_", "WAREHOUSE_"))]  # others have other owners
    longer = [setting for setting in own if setting.startswith(f"{name}_")]
    return next(iter(longer if len(longer) == 1 else get_close_matches(name, own, 1, similarity)), None)


def env_files() -> list[Path]:
    """The `.env` files to read, the one that takes precedence first: the nearest one from the working directory
    upwards, the checkout's, the home's.

    The nearest one is left out if it belongs to another user, who could use it to send the key to another address.
    """
    nearest = _nearest()
    found = [nearest] if nearest and not _is_foreign(nearest) else []
    if is_checkout():
        found.append(PROJECT / _NAME)
    with suppress(NoHome):
        found.append(home() / _NAME)
    return [path for path in dict.fromkeys(found) if os.path.isfile(path)]  # noqa: PTH113 as in _nearest


def _nearest() -> Path | None:
    try:
        start = Path.cwd()
    except FileNotFoundError:  # it was deleted
        return None
    candidates = (directory / _NAME for directory in (start, *start.parents))
    # Unlike Path.is_file, this is False where a directory may not be searched.
    return next((path for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113 see above


def _is_foreign(path: Path) -> bool:
    if os.name != "posix":
        return False
    sudo_user = os.environ.get("SUDO_UID") if os.geteuid() == 0 else None
    return str(path.stat().st_uid) not in ("0", str(os.geteuid()), sudo_user)
