"""What holds in every transaction on PostgreSQL, whatever the server, the role, the database or a pooler presets.

It is set by statements, for one transaction: poolers take no options at the start of a connection, and may give the
next transaction another connection to the server. Servers that can't hold a warehouse are refused.
"""

import os
import re
from typing import Any

import sqlalchemy as sa

from resources.database_errors import URL_VARIABLE, WarehouseError

OLDEST_VERSION = (14,)
_ENCODINGS = ("UTF8", "SQL_ASCII")  # the latter stores whatever it is sent, and it is sent UTF-8
_FORMS = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}
# A limit that ends a load in the middle would only have it repeated. Analysts' own limits stay.
_LIMITS_OF_WRITERS = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
_NOT_TO_BE_ASKED_FOR = {*_FORMS, "client_encoding", "transaction_isolation", "default_transaction_isolation"}


def refused_options(url: sa.URL) -> list[str]:
    """The parameters in the options of the address and in PGOPTIONS that the job has to set itself."""
    return sorted(_NOT_TO_BE_ASKED_FOR & asked_for(url).keys())


def options(url: sa.URL) -> dict[str, Any]:
    """How the driver connects, where the address and the environment don't say."""
    # Nothing is prepared, since a pooler may give each transaction another connection.
    found: dict[str, Any] = {"prepare_threshold": None, "client_encoding": "utf8"}
    if "application_name" not in url.query and "PGAPPNAME" not in os.environ:
        found["application_name"] = "devin-sessions"
    if "connect_timeout" not in url.query and "PGCONNECT_TIMEOUT" not in os.environ:
        found["connect_timeout"] = 10
    return found


def prepare(connection: sa.Connection, *, lock_timeout: str, read_only: bool) -> None:
    """Set what holds until the transaction of `connection` ends; it must be the first thing in it.

    Limits that the address or PGOPTIONS ask for by name are left as they are.
    """
    asked = asked_for(connection.engine.url)
    limits = {"lock_timeout": lock_timeout, **({} if read_only else _LIMITS_OF_WRITERS)}
    wanted = _FORMS | {name: value for name, value in limits.items() if name not in asked}
    driver_connection: Any = connection.connection.driver_connection
    # A reader sees one state of the warehouse, however many queries it takes.
    begin = f"set transaction isolation level {'repeatable read' if read_only else 'read committed'}"
    if read_only:
        # Prepared statements go one at a time: none can end the transaction for the next. A pooler may have chosen the
        # connection on which another reader prepared its own, by the same names.
        driver_connection.execute(f"{begin} read only; deallocate all")
        driver_connection.prepare_threshold = 0
    else:
        driver_connection.execute(begin)
    # In one statement, since each is a round trip.
    connection.execute(sa.select(*(sa.func.set_config(name, value, True) for name, value in wanted.items())))


def refuse_unfit(connection: sa.Connection, name: str) -> None:
    """Raise WarehouseError if the server is too old or can't hold every name; messages call the warehouse `name`."""
    version = connection.dialect.server_version_info
    if version is not None and version < OLDEST_VERSION:
        raise WarehouseError(
            f"The warehouse {name} is PostgreSQL {version[0]}, but {OLDEST_VERSION[0]} is the oldest supported "
            f"version. Upgrade it, or set {URL_VARIABLE} to another database."
        )
    driver_connection = connection.connection.driver_connection
    assert driver_connection is not None
    encoding = str(driver_connection.info.parameter_status("server_encoding") or "")
    if encoding and encoding not in _ENCODINGS:
        raise WarehouseError(
            f"The warehouse {name} has the encoding {encoding}, which can't hold every organization's name. Create a "
            "database with: create database NAME encoding 'UTF8' template template0. Then set "
            f"{URL_VARIABLE} to it."
        )


def asked_for(url: sa.URL) -> dict[str, str]:
    """The parameters in PGOPTIONS and in the options of the address, with their values; the latter have precedence."""
    options = [os.environ.get("PGOPTIONS", ""), *url.normalized_query.get("options", ())]
    # A blank ends a value, so that a server refuses what follows it; messages show that as part of the value.
    found = re.findall(r"(?:-c\s*|--)([A-Za-z_][A-Za-z0-9_.-]*)\s*=((?:\\.|\S|\s+(?=[^-\s]))*)", " ".join(options))
    return {name.replace("-", "_").lower(): re.sub(r"\\(.)", r"\1", value) for name, value in found}
