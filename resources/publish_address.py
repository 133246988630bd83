"""Where files may be published: a directory or a place in a bucket, and which addresses are refused.

Messages never quote an address that is refused: it may hold a secret. Imports no client.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from resources.addresses import check_url

Scheme = Literal["file", "s3", "gs", "abfs"]

_SCHEMES: dict[str, Scheme] = {"s3": "s3", "gs": "gs", "abfs": "abfs", "abfss": "abfs"}

_BUCKET = re.compile(
    r"(?:s3|gs)://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9])(?P<path>(?:/[A-Za-z0-9._=-]+)*)/?"
)
_AZURE = re.compile(
    r"abfss?://(?P<bucket>[a-z0-9-]{3,63})@(?P<account>[a-z0-9]{3,24})\.dfs\.core\.windows\.net"
    r"(?P<path>(?:/[A-Za-z0-9._=-]+)*)/?"
)
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class PublishAddress:
    """The parts of an address. `text` is the address as others may read it, without a slash at its end.

    root: the directory, or the bucket or container with the path in it. account: of Azure's storage, else empty.
    depth: how many of the last parts of `root` are the publisher's to create.
    """

    scheme: Scheme
    text: str
    root: str
    account: str = ""
    depth: int = 1

    @property
    def bucket(self) -> str:
        """The bucket or container."""
        return self.root.partition("/")[0]

    def folder(self, name: str) -> "PublishAddress":
        """The folder of this name in it."""
        return replace(self, text=f"{self.text}/{name}", root=f"{self.root}/{name}", depth=self.depth + 1)

    @classmethod
    def parse(cls, text: str) -> "PublishAddress":
        """Raises ValueError with the reason."""
        scheme, separator, rest = text.partition("://")
        if not separator and text.startswith("/"):
            return _directory(text)
        if scheme == "file":
            if not rest.startswith("/"):
                raise ValueError("after file:// comes an absolute path, as in file:///srv/published")
            try:
                return _directory(unquote(rest, errors="strict"))
            except UnicodeDecodeError:
                raise ValueError("after a % comes a character in UTF-8") from None
        kind = _SCHEMES.get(scheme)
        if kind is None:
            raise ValueError("neither a directory nor a place in a bucket")
        if (":" if kind == "abfs" else "@") in rest:
            raise ValueError("credentials do not belong in it: set those that the cloud's own tools read")
        if "?" in rest or "#" in rest:
            raise ValueError("options do not belong in it: set them in the variables that the cloud's own tools read")
        found = _BUCKET.fullmatch(text) or _AZURE.fullmatch(text)
        if not found or {".", ".."} & set(found["path"].split("/")):
            raise ValueError("neither a directory nor a place in a bucket")
        account = found.groupdict().get("account", "")
        return cls(kind, text.rstrip("/"), found["bucket"] + found["path"], account)


def s3_endpoint() -> str | None:
    """The address of an S3-compatible store, from the variables that Amazon's own tools read; None for Amazon's.

    Raises ValueError if what is sent there could be read or changed on the way.
    """
    variable = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if variable is None:
        return None
    try:
        return check_url(os.environ[variable])
    except ValueError:
        raise ValueError(
            f"{variable} is refused. Allowed: an https:// address without user and password; http:// only for this "
            "machine (127.0.0.1, ::1, localhost)."
        ) from None


def _directory(path: str) -> PublishAddress:
    normal = os.path.normpath(path)  # links stay as they are
    if normal.strip("/") == "":
        raise ValueError("a directory of its own is needed")
    if not normal.isprintable():
        raise ValueError("it contains a character that is not visible")
    return PublishAddress("file", Path(normal).as_uri(), normal)
