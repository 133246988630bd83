"""The first connection of a run to a PostgreSQL server, whose address nobody has proven right yet.

A server that is down for a moment is told from a wrong password, database or certificate by what it answers to a
greeting without any secret: libpq gives no SQLSTATE for a connection that failed, but goes by it here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa
from psycopg import conninfo, pq

from resources.database_errors import URL_VARIABLE, Described, WarehouseAway, reached, shorten

_WHERE = {"host", "hostaddr", "port", "service", "connect_timeout"}
# Nothing secret is sent, and nobody is let in: a server that asks who this is, or refuses it, is up.
_GREETING = {
    "user": "devin-sessions",
    "dbname": "devin-sessions",
    "require_auth": "none",
    "sslmode": "disable",
    "gssencmode": "disable",
    "target_session_attrs": "any",
}
_AWAY = (pq.Ping.REJECT, pq.Ping.NO_RESPONSE)


class _Addressed(Described, Protocol):
    @property
    def is_duckdb(self) -> bool: ...
    def address(self, read_only: bool) -> tuple[sa.URL, dict[str, Any]]: ...


@contextmanager
def first_contact(database: _Addressed) -> Iterator[None]:
    """What connects in the block raises WarehouseAway instead if it failed because the server is down for now.

    That is asked only where someone is told of the wait, and until this process has had a connection.
    """
    if database.tell is None or database.is_duckdb or database.url in reached:
        yield
        return
    was_up = _is_up(database)  # else it may have come up between the failure and the next look
    try:
        yield
    except (psycopg.OperationalError, sa.exc.DBAPIError) as error:
        original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        # Without a connection of libpq, the host is unknown, or has not answered at all.
        is_refused = isinstance(original, psycopg.OperationalError) and original.pgconn is not None
        if not is_refused or (was_up and _is_up(database)):
            raise
        short = shorten(" ".join(str(original).split())).rstrip(".?")
        raise WarehouseAway(
            f"The warehouse {database.name} accepts no connection: {short}.",
            f"Check whether that server is up, and the host and port in {URL_VARIABLE}; then run the same again.",
        ) from None


def _is_up(database: _Addressed) -> bool:
    """Whether the server accepts connections, from whomever."""
    url, options = database.address(read_only=True)
    _, parameters = url.get_dialect()().create_connect_args(url)
    where = {name: value for name, value in {**parameters, **options}.items() if name in _WHERE}
    return pq.PGconn.ping(conninfo.make_conninfo(**where, **_GREETING).encode()) not in _AWAY
