"""Places to which files are published: a directory, or a place in a bucket of S3, Google Cloud Storage or Azure.

A file is there as a whole or not at all, under a name with slashes. Nobody locks a place: what several writers at once
may do is up to the caller. The clouds' clients are used only for a bucket.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import fs

from resources.authorities import VARIABLES
from resources.files import replacing_beside_others
from resources.proxies import proxy_address
from resources.publish_address import PublishAddress, s3_endpoint
from resources.publish_errors import PublishError, explain

MANIFEST, FILES = "manifest.json", "files"

_CONNECT_SECONDS, _SILENT_SECONDS = 10, 10
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".txt": "text/plain; charset=utf-8",
}


class Place(Protocol):
    """Files under an address. Each method raises OSError.

    folder: the address for those who read files there: a directory's path is as it is, since readers such as DuckDB do
        not take %20 for a space.
    """

    address: str
    folder: str

    def sizes(self) -> dict[str, int]:
        """The size in bytes of each file in FILES, by name; empty if there is no such folder."""

    def read(self, name: str) -> bytes | None:
        """The content of a file, None if there is none."""

    def put(self, name: str, content: bytes) -> None:
        """Create or replace a file as a whole."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


def open_place(address: PublishAddress, *, tries: int = 3) -> Place:
    """The place at an address, at which each request is sent up to so many times.

    Nothing is sent yet, except to find out the region of a bucket of Amazon's. Raises PublishError.
    """
    if address.scheme == "file":
        return _Directory(address.text, Path(address.root), address.depth)
    return _Bucket(address.text, address.root, _file_system(address, tries))


@contextmanager
def explained(attempted: str, kept: str) -> Iterator[None]:
    """Turn the OSError of a place into a PublishError; the arguments are those of `explain`."""
    try:
        yield
    except OSError as error:
        raise explain(error, attempted, kept) from None


@contextmanager
def _only_os_errors() -> Iterator[None]:
    """Some failures of Azure's client are not OSErrors."""
    try:
        yield
    except pa.ArrowException as error:
        raise OSError(str(error)) from None


class _Directory:
    def __init__(self, address: str, root: Path, depth: int) -> None:
        self.address = address
        self.folder = f"file://{root}"
        self._root = root
        self._own = [root, *root.parents][:depth]

    def sizes(self) -> dict[str, int]:
        found = {}
        for path in (self._root / FILES).rglob("*"):
            if path.is_file() and not path.is_symlink():
                found[path.relative_to(self._root).as_posix()] = path.stat().st_size
        return found

    def read(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, name: str, content: bytes) -> None:
        path = self._root / name
        for directory in reversed(self._own):  # not their parents: they may be a disk that isn't mounted
            directory.mkdir(exist_ok=True)
        for directory in (path.parent, self._root / FILES):
            new = [each for each in (directory, *directory.parents) if not each.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            for each in new:
                with suppress(PermissionError):  # another user's run has created it meanwhile, and does the same
                    each.chmod(self._root.stat().st_mode & 0o7777)
        manifest = self._root / MANIFEST
        # Whoever may list the place and read the manifest may read the files that it is to name.
        like = manifest if manifest.exists() else None
        with replacing_beside_others(path, like, unfinished_in=self._root / FILES) as file:
            file.write(content)

    def remove(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)


class _Bucket:
    def __init__(self, address: str, root: str, file_system: Any) -> None:
        self.address = self.folder = address
        self._root = root
        self._file_system = file_system

    def sizes(self) -> dict[str, int]:
        chosen = fs.FileSelector(f"{self._root}/{FILES}", recursive=True, allow_not_found=True)
        with _only_os_errors():
            found = self._file_system.get_file_info(chosen)
        return {info.path.removeprefix(f"{self._root}/"): info.size for info in found if info.is_file}

    def read(self, name: str) -> bytes | None:
        try:
            with _only_os_errors(), self._file_system.open_input_stream(f"{self._root}/{name}") as file:
                content: bytes = file.read()
                return content
        except FileNotFoundError:
            return None

    def put(self, name: str, content: bytes) -> None:
        metadata = {"Content-Type": _CONTENT_TYPES[os.path.splitext(name)[1]]}  # noqa: PTH122 not a path of this machine
        path = f"{self._root}/{name}"
        with _only_os_errors(), self._file_system.open_output_stream(path, metadata=metadata) as file:
            file.write(content)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError), _only_os_errors():
            self._file_system.delete_file(f"{self._root}/{name}")


def _file_system(address: PublishAddress, tries: int) -> Any:
    with explained(f"reach {address.text}", "Nothing was changed there."), _only_os_errors():
        if address.scheme == "gs":
            return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=tries * _SILENT_SECONDS))
        if address.scheme == "abfs":
            return fs.AzureFileSystem(address.account)
        return _s3(address, tries)


def _s3(address: PublishAddress, tries: int) -> Any:
    try:
        endpoint = s3_endpoint()
        proxy = proxy_address(endpoint or f"https://{address.bucket}.s3.amazonaws.com")
    except ValueError as error:  # ProxyRefused is one
        raise PublishError(str(error)) from None
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    authorities = next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None)
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region or ("us-east-1" if endpoint else fs.resolve_s3_region(address.bucket)),
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_SILENT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=tries),
        background_writes=False,
        proxy_options=proxy,
        allow_delayed_open=True,  # a file of up to 5 MB is one request
        tls_ca_file_path=authorities if authorities and Path(authorities).is_file() else None,
    )
