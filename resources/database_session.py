"""What holds in every transaction on PostgreSQL, whatever the server, the role, the database or a pooler presets.

It is set by statements, for one transaction: poolers take no options at the start of a connection, and may give the
next transaction another connection to the server.
"""

import os
import re

import sqlalchemy as sa

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


def prepare(connection: sa.Connection, *, lock_timeout_seconds: float, read_only: bool) -> None:
    """Set what holds until the transaction of `connection` ends; it must be the first thing in it.

    Limits that the address or PGOPTIONS ask for by name are left as they are.
    """
    asked = asked_for(connection.engine.url)
    milliseconds = max(1, int(lock_timeout_seconds * 1000))  # 0 would mean to wait forever
    limits = {"lock_timeout": str(milliseconds), **({} if read_only else _LIMITS_OF_WRITERS)}
    wanted = _FORMS | {name: value for name, value in limits.items() if name not in asked}
    mode = " read only" if read_only else ""
    connection.execute(sa.text(f"set transaction isolation level read committed{mode}"))
    # In one statement, since each is a round trip.
    connection.execute(sa.select(*(sa.func.set_config(name, value, True) for name, value in wanted.items())))


def unfit_encoding(connection: sa.Connection) -> str:
    """The encoding of the database if it can't hold every name, else empty."""
    driver_connection = connection.connection.driver_connection
    assert driver_connection is not None
    encoding = driver_connection.info.parameter_status("server_encoding") or ""
    return "" if encoding in _ENCODINGS else str(encoding)


def asked_for(url: sa.URL) -> dict[str, str]:
    """The parameters in PGOPTIONS and in the options of the address, with their values; the latter have precedence."""
    options = [os.environ.get("PGOPTIONS", ""), *url.normalized_query.get("options", ())]
    # A blank ends a value, so that a server refuses what follows it; messages show that as part of the value.
    found = re.findall(r"(?:-c\s*|--)([A-Za-z_][A-Za-z0-9_.-]*)\s*=((?:\\.|\S|\s+(?=[^-\s]))*)", " ".join(options))
    return {name.replace("-", "_").lower(): re.sub(r"\\(.)", r"\1", value) for name, value in found}
