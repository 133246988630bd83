"""The row of a PostgreSQL warehouse in which all processes with one key keep the pace that they share.

Times in it are seconds since 1970 on the server's clock, so that no two machines have to agree on theirs.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

import psycopg
import sqlalchemy as sa
import tenacity
from psycopg.rows import dict_row

from resources.database import Database
from resources.database_errors import WarehouseError, WarehouseLost, explain, reached, shorten
from resources.devin_key import digest_of_key
from resources.first_contact import first_contact
from resources.identifiers import quoted
from resources.pace import LATE_SECONDS, LearnedRate
from resources.repeating import repeating

LEASE_SECONDS = 0.15
"""For how long a process goes on without asking the row: so late does it learn of a pause."""
SLOTS_PER_SECOND = 25
"""Answers are counted in slots of time, numbered since 1970."""
REMEMBERED_SECONDS = 3.0
_LONGEST_INTERVAL = 60.0  # of one request a minute, the lowest limit: no turn is further away, whatever the clock did

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Shared:
    """What the row says, at `now` on the server's clock.

    `revision` counts the changes of `rate` and of `paused_until`; before the latter, nobody sends anything.
    `refused_at` is when the request had its turn whose refusal began the last pause. `answered` has the number of
    answered requests by the slot of their turns in the last seconds, over all processes. `turns` is how many were
    leased, the first at `first_turn`.
    """

    now: float
    revision: int
    rate: LearnedRate
    paused_until: float
    refused_at: float
    answered: Mapping[int, int]
    first_turn: float
    turns: int

    def answered_before(self, at: float) -> float:
        """How many requests of the second before `at` were answered, give or take one."""
        if at == -math.inf:
            return 0
        last = slot(at)
        first, share = last - SLOTS_PER_SECOND, 1 - at * SLOTS_PER_SECOND % 1
        within = sum(number for slot_, number in self.answered.items() if first < slot_ <= last)
        return within + share * self.answered.get(first, 0)


class Row(Protocol):
    """The row of one key, in this process's connection."""

    async def lease(self, answers: Mapping[int, int], turns: int, interval: float, revision: int) -> Shared:
        """Add `answers`, by slot, and lease up to this number of turns, `interval` seconds apart.

        They are fewer if they would be later than the end of the lease, and none in a pause, or if the rate has changed
        since the `revision` by which the interval was chosen.
        """
        ...

    async def relearn(self, rate: LearnedRate, paused_until: float, refused_at: float, revision: int) -> bool:
        """Replace what is learned, unless it has changed since `revision`. Returns whether it was replaced."""
        ...


def slot(at: float) -> int:
    """The number of the slot that a time is in."""
    return int(at * SLOTS_PER_SECOND // 1)


_BEGIN = "insert into {table} (id) values (%(id)s) on conflict (id) do nothing"
_LEASE = f"""
with locked as materialized (select * from {{table}} where id = %(id)s for update),
timed as materialized (select *, cast(extract(epoch from clock_timestamp()) as double precision) as now from locked),
due as (
    select *, greatest(least(next_turn, now + {_LONGEST_INTERVAL + LEASE_SECONDS}), now - {LATE_SECONDS}, paused_until)
        as first_turn
    from timed
),
leased as (
    select *, case
        when paused_until > now or revision <> %(revision)s or %(interval)s = 0 then 0
        else cast(greatest(0, least(
            %(turns)s, floor((now + {LEASE_SECONDS} - first_turn) / nullif(%(interval)s, 0)) + 1
        )) as bigint)
    end as turns
    from due
)
update {{table}} as stored set
    next_turn = case when leased.turns > 0 then leased.first_turn + leased.turns * %(interval)s
        else least(stored.next_turn, leased.now + {_LONGEST_INTERVAL + LEASE_SECONDS}) end,
    answered = (
        select coalesce(jsonb_object_agg(slot, number), '{{{{}}}}') from (
            select slot, sum(cast(number as bigint)) as number from (
                select * from jsonb_each_text(leased.answered)
                union all select * from jsonb_each_text(cast(%(answers)s as jsonb))
            ) as both_of (slot, number)
            where cast(slot as bigint) > (leased.now - {REMEMBERED_SECONDS}) * {SLOTS_PER_SECOND}
            group by slot
        ) as added
    )
from leased where stored.id = leased.id
returning
    leased.now, stored.revision, stored.per_second, stored.is_guess, stored.since, stored.paused_until,
    stored.refused_at, stored.answered, leased.first_turn, leased.turns
"""
_RELEARN = """
update {table} set
    per_second = %(per_second)s, is_guess = %(is_guess)s, since = %(since)s, paused_until = %(paused_until)s,
    refused_at = %(refused_at)s, revision = revision + 1
where id = %(id)s and revision = %(revision)s
"""


@dataclass(frozen=True)
class PaceRows:
    """The rows of all keys. `create` makes their table, where it isn't there yet."""

    database: Database
    create: Callable[[sa.Connection], None] = field(repr=False)

    @asynccontextmanager
    async def row(self, key: str, url: str) -> "AsyncIterator[Row]":
        """The row of this key at this address of the API, over a connection of its own."""
        of_key = _PaceRow(self, digest_of_key(key, url))
        try:
            await of_key.open()
            yield of_key
        finally:
            await of_key.close()


@dataclass
class _PaceRow:
    rows: PaceRows
    id: str
    _connection: psycopg.AsyncConnection[Any] | None = None

    def __post_init__(self) -> None:
        schema = self.rows.database.schema
        table = f"{quoted(schema)}.api_pace" if schema else "api_pace"
        self._begin, self._lease, self._relearn = (text.format(table=table) for text in (_BEGIN, _LEASE, _RELEARN))

    async def open(self) -> None:
        """Connect, and create what is missing."""
        await self._try(lambda: self._execute(self._begin, {}))

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def lease(self, answers: Mapping[int, int], turns: int, interval: float, revision: int) -> Shared:
        values = {"answers": json.dumps(answers), "turns": turns, "interval": interval, "revision": revision}
        while (found := await self._try(lambda: self._fetch(self._lease, values))) is None:
            await self.open()  # the server has crashed, which empties the table
        rate = LearnedRate(*(found.pop(name) for name in ("per_second", "is_guess", "since")))
        answered = {int(slot_): number for slot_, number in found.pop("answered").items()}
        return Shared(rate=rate, answered=answered, **found)

    async def relearn(self, rate: LearnedRate, paused_until: float, refused_at: float, revision: int) -> bool:
        values = {
            **asdict(rate),
            "paused_until": paused_until,
            "refused_at": refused_at,
            "revision": revision,
        }
        return await self._try(lambda: self._execute(self._relearn, values)) > 0

    async def _execute(self, statement: str, values: Mapping[str, object]) -> int:
        connection = await self._connected()
        return (await connection.execute(statement, {**values, "id": self.id})).rowcount

    async def _fetch(self, statement: str, values: Mapping[str, object]) -> dict[str, Any] | None:
        connection = await self._connected()
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement, {**values, "id": self.id})
            return await cursor.fetchone()

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None:
            database = self.rows.database
            url, options = database.address(read_only=False)
            _, parameters = url.get_dialect()().create_connect_args(url)
            with first_contact(database):
                self._connection = await psycopg.AsyncConnection.connect(**{**parameters, **options}, autocommit=True)
            reached.add(database.url)
        return self._connection

    async def _try(self, statement: Callable[[], Awaitable[_Result]]) -> _Result:
        """What `statement` returns. It is repeated while the connection is lost. Raises WarehouseError."""
        try:
            return await repeating(tenacity.AsyncRetrying, self.rows.database)(self._try_once, statement)
        except WarehouseError as error:
            raise type(error)(
                "No more requests are sent to the API: all processes with the same key take turns, which the warehouse "
                f"keeps. {error}"
            ) from None

    async def _try_once(self, statement: Callable[[], Awaitable[_Result]]) -> _Result:
        database = self.rows.database
        try:
            async with asyncio.timeout(database.lock_timeout_seconds):
                try:
                    return await statement()
                except psycopg.errors.UndefinedTable:
                    await asyncio.to_thread(database.write, self.rows.create)
                    return await statement()
        except TimeoutError:
            await self.close()
            raise WarehouseLost(
                f"The warehouse {database.name} did not respond within {database.lock_timeout_seconds:g} s. Run the "
                "same command again once it does."
            ) from None
        except (psycopg.errors.UndefinedColumn, psycopg.errors.WrongObjectType) as error:
            raise WarehouseError(
                f"The warehouse {database.name} holds an api_pace that this release did not create "
                f"({shorten(str(error.diag.message_primary))}). Rename it, or drop it if another release did."
            ) from None
        except psycopg.Error as error:
            await self.close()
            raise explain(database, error) from None
