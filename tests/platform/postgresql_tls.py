"""Debian's PostgreSQL on TCP, which takes passwords and only encrypted connections: as a company's server does."""

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tests.support.certificate import self_signed
from tests.support.ports import free_port

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def missing() -> str:
    """Why this machine can't have one, or an empty string."""
    return "" if _PROGRAMS and shutil.which("runuser") else "Debian's postgresql is not installed"


@dataclass
class Server:
    """A server in this directory, which is the user's `postgres`."""

    directory: Path
    certificate: Path
    port: int
    password: str

    def run(self, program: str, *arguments: str) -> None:
        command = ["runuser", "-u", "postgres", "--", str(_PROGRAMS[-1] / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.directory)

    def control(self, action: str) -> None:
        """Start, stop or restart it, at once: whoever is connected loses the connection."""
        log, data = str(self.directory / "log"), str(self.directory / "data")
        options = f"-p {self.port} -k {self.directory} -c max_connections=200 -c fsync=off"
        self.run("pg_ctl", "-w", "-m", "immediate", "-D", data, "-l", log, "-o", options, action)

    def database(self, name: str, driver: str) -> sa.URL:
        """A new database, with a role of its name that owns it."""
        for statement in (
            f"create role {name} login password '{self.password}'",
            f"create database {name} owner {name}",
        ):
            where = ("--host", str(self.directory), "--port", str(self.port))
            self.run("psql", "--no-psqlrc", "--quiet", *where, "--command", statement)
        options = {"sslmode": "verify-full", "sslrootcert": str(self.certificate)}
        return sa.URL.create(driver, name, self.password, "127.0.0.1", self.port, name, options)


@contextmanager
def server(directory: Path, certificate: Path) -> Iterator[Server]:
    """A server until the block ends, in this new directory, which every user must be able to enter.

    Its certificate, by which clients know it, is written to the file.
    """
    directory.mkdir(mode=0o755)
    made = Server(directory, certificate, free_port(), secrets.token_hex(8))
    key = directory / "key.pem"
    self_signed(key)
    certificate.write_text("-----BEGIN CERT" + key.read_text().split("-----BEGIN CERT")[1])
    for path, mode in ((key, 0o600), (certificate, 0o644), (directory, 0o755)):
        path.chmod(mode)
        shutil.chown(path, "postgres")
    made.run("initdb", "--pgdata", str(directory / "data"), "--auth", "trust", "--encoding", "UTF8")
    lines = ["ssl = on", f"ssl_cert_file = '{certificate}'", f"ssl_key_file = '{key}'"]
    with (directory / "data" / "postgresql.conf").open("a") as configuration:
        configuration.write("\n".join([*lines, "listen_addresses = '127.0.0.1'\n"]))
    (directory / "data" / "pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
    made.control("start")
    try:
        yield made
    finally:
        made.control("stop")
