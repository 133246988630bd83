"""Which writers of a schema on PostgreSQL wait for each other, and which session one waited for in vain.

A transaction has the schema to itself, or it shares the schema and has some days to itself. Whoever has days has shared
the schema before, and takes the days in order, so that nobody waits in a circle. Locks last as long as the transaction.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date

import sqlalchemy as sa

# The first half of a lock's number, "devs" and "devc" in ASCII: any will do as long as every writer uses the same. The
# second half is the schema's oid, so that writers of two schemas never wait for each other; a schema that is yet to be
# created has a hash of its name instead. A day's lock is one number of 64 bits, which PostgreSQL keeps apart.
_WRITERS, _CREATORS = 0x64657673, 0x64657663
_OID = "coalesce(cast(to_regnamespace(quote_ident(current_schema())) as oid), 0)"
_NAME = sa.text("select pg_advisory_xact_lock(:creators, hashtext(:name))")
_SCHEMA = sa.text(f"""
    select
        set_config('lock_timeout', :patience, true),
        pg_advisory_xact_lock(:writers, cast({_OID} as integer)),
        set_config('lock_timeout', :afterwards, true)
""")
_SHARED_SCHEMA = sa.text(f"""
    select
        set_config('lock_timeout', :patience, true),
        pg_advisory_xact_lock_shared(:writers, cast({_OID} as integer))
""")
_DAYS = sa.text(f"""
    select pg_advisory_xact_lock((cast({_OID} as bigint) << 32) + day)
    from unnest(cast(:days as bigint[])) as day
""")
_AFTERWARDS = sa.text("select set_config('lock_timeout', :afterwards, true)")
_HOLDER = sa.text(f"""
    select activity.pid, activity.application_name, activity.xact_start
    from pg_locks as locks
    inner join pg_stat_activity as activity on locks.pid = activity.pid
    where locks.granted
        and locks.pid <> pg_backend_pid()
        and locks.database = (select oid from pg_database where datname = current_database())
        and case :kind
            when 'days' then objsubid = 1 and classid = {_OID} and cast(objid as bigint) = any(:days)
            when 'schema' then objsubid = 2 and cast(classid as bigint) = :writers and objid = {_OID}
            else relation in (select oid from pg_class where relnamespace = {_OID})
        end
    -- One that shares a lock, or only reads, is seldom in the way.
    order by locks.mode in ('ShareLock', 'AccessShareLock'), activity.xact_start
    limit 1
""")
_WAIT = "wait"


@dataclass(frozen=True)
class Limits:
    """How long a transaction waits for other writers, in seconds, and then for tables, as PostgreSQL writes it."""

    patience_seconds: float
    for_tables: str

    @classmethod
    def of(cls, patience_seconds: float, timeout_seconds: float, asked: str | None) -> "Limits":
        """Those in seconds, unless the address has `asked` for another for tables."""
        return cls(patience_seconds, asked or _in_milliseconds(timeout_seconds))

    @property
    def patience(self) -> str:
        """The first, as PostgreSQL writes it."""
        return _in_milliseconds(self.patience_seconds)


@dataclass(frozen=True)
class Wait:
    """What a transaction waits for, and how long at most: the schema, some days of it, or by default a table."""

    seconds: float
    kind: str = "table"
    days: Collection[date] = ()


def lock_name(connection: sa.Connection, schema: str) -> None:
    """Wait until no other transaction creates a schema of this name, and keep others waiting."""
    connection.execute(_NAME, {"creators": _CREATORS, "name": schema})


def lock_schema(connection: sa.Connection, limits: Limits) -> None:
    """Wait until no other transaction writes to the current schema, and keep others waiting."""
    connection.info[_WAIT] = Wait(limits.patience_seconds, "schema")
    connection.execute(_SCHEMA, {"writers": _WRITERS, "patience": limits.patience, "afterwards": limits.for_tables})
    del connection.info[_WAIT]


def lock_days(connection: sa.Connection, days: Collection[date], limits: Limits) -> None:
    """Wait until no other transaction has the current schema or one of these days to itself; then have these days."""
    connection.info[_WAIT] = Wait(limits.patience_seconds, "schema")
    connection.execute(_SHARED_SCHEMA, {"writers": _WRITERS, "patience": limits.patience})
    connection.info[_WAIT] = Wait(limits.patience_seconds, "days", days)
    connection.execute(_DAYS, {"days": _numbers(days)})
    connection.execute(_AFTERWARDS, {"afterwards": limits.for_tables})
    del connection.info[_WAIT]


def waited_for(connection: sa.Connection, lock_timeout_seconds: float) -> Wait:
    """What the transaction on this connection, which a limit has ended, waited for."""
    wait: Wait = connection.info.get(_WAIT, Wait(lock_timeout_seconds))
    return wait


def holder(connection: sa.Connection, wait: Wait) -> str:
    """The session that has what another transaction waited for, in words; empty if it has let go of it."""
    found = connection.execute(
        _HOLDER, {"kind": wait.kind, "days": _numbers(wait.days), "writers": _WRITERS}
    ).one_or_none()
    if found is None:
        return ""
    # Who may not monitor the server learns no times of other roles' transactions.
    began = found.xact_start and f"in a transaction since {found.xact_start.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    about = ", ".join(filter(None, (found.application_name, began)))
    return f"the server's process {found.pid}" + (f" ({about})" if about else "")


def _in_milliseconds(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))  # 0 would mean to wait forever


def _numbers(days: Collection[date]) -> list[int]:
    return [day.toordinal() for day in sorted(days)]
