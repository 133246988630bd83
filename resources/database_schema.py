"""The schema of a PostgreSQL database in which the warehouse is: its name, and entering or creating it."""

import re

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from resources import database_locks, database_session
from resources.database_errors import URL_VARIABLE, WarehouseError

VARIABLE = "DEVIN_SCHEMA"

# SQL's, by SQLAlchemy, and those that it leaves out.
_RESERVED = {*postgresql.base.RESERVED_WORDS, "collation", "concurrently", "lateral", "system_user", "tablesample"}
_LARGEST_NAME = 63  # PostgreSQL cuts off what is longer
_PRIVILEGES = sa.text("select has_schema_privilege(oid, 'usage') from pg_catalog.pg_namespace where nspname = :schema")


def check_schema(name: str) -> str:
    """Return the name if no statement needs quotes around it. Raises ValueError with the reason otherwise."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        raise ValueError("in any other name, every query would have to put it in quotes")
    if name in _RESERVED:
        raise ValueError(
            "a reserved word of SQL, which every query would have to put in quotes; if there is such a schema, rename "
            f'it: alter schema "{name}" rename to {name}_metrics'
        )
    if len(name) > _LARGEST_NAME:
        raise ValueError(f"PostgreSQL would cut it off after {_LARGEST_NAME} characters")
    if name.startswith("pg_") or name == "information_schema":
        raise ValueError("PostgreSQL keeps this name to itself")
    return name


def refuse_other_search_path(schema: str, url: sa.URL) -> None:
    """Raise WarehouseError if the address or PGOPTIONS asks for a search_path of anything but `schema`."""
    asked = database_session.asked_for(url).get("search_path", schema)
    if asked.strip("\"'") != schema:
        raise WarehouseError(
            f"{URL_VARIABLE} or PGOPTIONS sets search_path to {asked}, but {VARIABLE} is {schema}: remove one of them."
        )


def enter(connection: sa.Connection, schema: str, name: str, *, read_only: bool) -> None:
    """Let names without a schema mean those in `schema` until the transaction ends, whatever anyone presets.

    If there is no such schema, a writer creates it, and a reader finds no tables. Raises WarehouseError if the user
    lacks the permission; `name` is how the message refers to the warehouse.
    """
    quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
    # pg_temp last: unless it is named, a pooled connection's temporary tables would be found first.
    connection.execute(sa.select(sa.func.set_config("search_path", f"{quoted}, pg_temp", True)))
    may_use = connection.scalar(_PRIVILEGES, {"schema": schema})
    if may_use is None and not read_only:
        database_locks.lock_name(connection, schema)
        may_use = connection.scalar(_PRIVILEGES, {"schema": schema})
        if may_use is None:
            may_use = _create(connection, quoted, name)
    if may_use is False:
        user = connection.scalar(sa.text("select quote_ident(current_user)"))
        raise WarehouseError(
            f"User {user} may not use the schema of the warehouse {name}. The schema's owner can type: "
            f"grant usage{'' if read_only else ', create'} on schema {quoted} to {user}; "
            "Then run the same command again."
        )


def _create(connection: sa.Connection, quoted: str, name: str) -> bool:
    may_create = connection.scalar(sa.text("select has_database_privilege(current_database(), 'create')"))
    if not may_create:
        user = connection.scalar(sa.text("select quote_ident(current_user)"))
        raise WarehouseError(
            f"The warehouse {name} does not exist yet, and user {user} may not create its schema. An administrator of "
            f"the database can type: create schema {quoted} authorization {user}; Then run the same command again."
        )
    connection.execute(sa.text(f"create schema {quoted}"))
    return True
