"""What stands in the way of a file operation that failed: which file or directory, whose it is, and what to do.

With `os.path`: pathlib raises where a directory may not be searched.
"""

import errno
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Obstacle:
    """why: the reason, without a full stop. fix: what the user can do, as the beginning of a sentence."""

    why: str
    fix: str


UNKNOWN_FIX = "Fix that (disk full? permissions?)"
_PLAIN = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EROFS: "Make that file system writable, or choose another path",
    errno.ENAMETOOLONG: "Choose a shorter path",
}


def obstacle(error: OSError, path: Path | None = None) -> Obstacle:
    """Explain why an operation on `path` failed. If the error has an absolute path of its own, that is the one."""
    named = error.filename2 or error.filename  # of a renaming, the second is the one that may be in the way
    if isinstance(named, str) and os.path.isabs(named):
        path = Path(named)
    why = os.strerror(error.errno) if error.errno else str(error)  # libraries add words of their own to an error's
    if path is None or error.errno in _PLAIN:
        return Obstacle(why, _PLAIN.get(error.errno or 0, UNKNOWN_FIX))
    if error.errno in (errno.EACCES, errno.EPERM):
        return _forbidden(why, _locked(path))
    if error.errno == errno.EISDIR:
        return Obstacle(f"{why}: {path} has to be a file", "Move that directory away")
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.EEXIST, errno.ENOTDIR):
        return _in_the_way(why, path)
    return Obstacle(why, UNKNOWN_FIX)


def blocked(path: Path, *, writing: bool) -> OSError | None:
    """The error that opening this file would raise; None if it can be opened, or is missing and may be created.

    It is not opened: closing it would end the locks that this process has on it.
    """
    needed = os.R_OK | (os.W_OK if writing else 0)
    place, number = path, 0
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            number = errno.EISDIR
    except OSError as error:
        if error.errno != errno.ENOENT or _is_link_to_nowhere(path):
            return error
        place, needed = path.parent, (os.W_OK | os.X_OK if writing else 0)  # it is missing
    if not number and not _may(place, needed):
        number = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
    return OSError(number, os.strerror(number), str(path)) if number else None


def forbidden_in(directory: Path) -> OSError | None:
    """The error that writing to the first of the files in this directory would raise for lack of permission, if any."""
    everything = (Path(parent, name) for parent, _, names in os.walk(directory) for name in ("", *names))
    for path in everything:
        number = 0 if _may(path, os.R_OK | os.W_OK | (os.X_OK if os.path.isdir(path) else 0)) else errno.EACCES
        if number:
            number = errno.EROFS if os.statvfs(directory).f_flag & os.ST_RDONLY else number
            return OSError(number, os.strerror(number), str(path))
    return None


def owner(path: Path) -> str:
    """Who owns a file, by name if the user has one. Raises OSError."""
    return _user(os.stat(path).st_uid)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"the user with id {number}"


def _forbidden(why: str, path: Path) -> Obstacle:
    try:
        state = os.stat(path)
    except OSError:
        return Obstacle(f"{why}: {path}", "Change its permissions")
    if state.st_uid == os.geteuid():
        return Obstacle(f"{why}: {path} is yours, with mode {stat.filemode(state.st_mode)}", "Change its permissions")
    whose, yours = _user(state.st_uid), _user(os.geteuid())
    return Obstacle(f"{why}: {path} belongs to {whose}, and you are {yours}", "Change its owner or permissions")


def _locked(path: Path) -> Path:
    """The file or directory whose permissions don't allow to open, create or replace `path`."""
    for directory in reversed(path.parents):
        if not _may(directory, os.X_OK):
            return directory
        if not os.path.lexists(directory):
            return directory.parent
    needed = os.R_OK | os.W_OK | (os.X_OK if os.path.isdir(path) else 0)
    return path.parent if _may(path, needed) else path


def _in_the_way(why: str, path: Path) -> Obstacle:
    for each in (*reversed(path.parents), path):
        if os.path.islink(each) and (each == path or not os.path.exists(each)):
            return Obstacle(f"{why}: {each} is a link to {os.readlink(each)}", "Remove that link, or repair it")
        if os.path.lexists(each) and not os.path.isdir(each):
            return Obstacle(f"{why}: {each} has to be a directory", "Move that file away")
    return Obstacle(f"{why}: {path}", "Choose another path")


def _is_link_to_nowhere(path: Path) -> bool:
    """Whether a link on the path leads to where nothing is and, if it is the last part, nothing can be created."""
    if any(os.path.islink(each) and not os.path.exists(each) for each in path.parents):
        return True
    return os.path.islink(path) and not os.path.isdir(path.parent / Path(os.readlink(path)).parent)


def _may(path: Path, how: int) -> bool:
    """Whether this process may do that; True if there is no such file."""
    return not os.path.lexists(path) or os.access(path, how, effective_ids=os.access in os.supports_effective_ids)
