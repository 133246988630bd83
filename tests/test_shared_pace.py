"""Several workers with one key: whatever they do, they keep to one limit, and a pause of one is a pause of all.

The same machine runs on a clock that the tests move, with a model of the row, and on a real PostgreSQL.
"""

import asyncio
import itertools
import math
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipelines.command import exit_codes
from pipelines.home import PROJECT
from resources.database import Database
from resources.outage import Waiting
from resources.pace import LATE_SECONDS, USED, LearnedRate
from resources.pace_row import LEASE_SECONDS, REMEMBERED_SECONDS, SLOTS_PER_SECOND, PaceRows, Row, Shared
from resources.sandbox.server import Sandbox
from resources.shared_pace import SharedPace
from tests.support.command import in_this_process
from tests.support.examples import examples
from tests.support.moved_clock import Loop, run
from tests.support.postgresql import PostgreSQL
from tests.support.world import World
from warehouse import migrations

EPOCH = 1_700_000_000
TINY = 1e-6  # a double since 1970 is no finer
ANSWERED_AFTER = 0.1


@dataclass
class Model:
    """What the row does, in memory."""

    rate: LearnedRate = field(default_factory=LearnedRate)
    revision: int = 0
    paused_until: float = -math.inf
    refused_at: float = -math.inf
    next_turn: float = -math.inf
    answered: Counter[int] = field(default_factory=Counter)

    async def lease(self, answers: Mapping[int, int], turns: int, interval: float, revision: int) -> Shared:
        now = asyncio.get_running_loop().time() + EPOCH
        self.answered += Counter(answers)
        oldest = (now - REMEMBERED_SECONDS) * SLOTS_PER_SECOND
        self.answered = Counter({slot: number for slot, number in self.answered.items() if slot > oldest})
        first = max(self.next_turn, now - LATE_SECONDS, self.paused_until)
        if self.paused_until > now or revision != self.revision or not interval:
            turns = 0
        else:
            turns = int(max(0, min(turns, (now + LEASE_SECONDS - first) // interval + 1)))
        if turns:
            self.next_turn = first + turns * interval
        return Shared(
            now, self.revision, self.rate, self.paused_until, self.refused_at, dict(self.answered), first, turns
        )

    async def relearn(self, rate: LearnedRate, paused_until: float, refused_at: float, revision: int) -> bool:
        if revision != self.revision:
            return False
        self.rate, self.paused_until, self.refused_at = rate, paused_until, refused_at
        self.revision += 1
        return True


@dataclass
class Seen:
    """What happened, over all workers: on the server's clock, or on the event loop's."""

    leased: list[tuple[float, float]] = field(default_factory=list)
    """Each turn, and the seconds that its lease left until the next."""
    pauses: list[tuple[float, float, float]] = field(default_factory=list)
    """When the row had it, on either clock, and its end, on the loop's."""
    asked: list[tuple[float, int]] = field(default_factory=list)
    stopped: list[tuple[int, float, float]] = field(default_factory=list)


@dataclass
class Watched:
    """A row as a worker sees it whose clock is ahead by `skew`, with the time that the network takes each way."""

    row: Row
    seen: Seen
    skew: int
    delay: float

    async def lease(self, answers: Mapping[int, int], turns: int, interval: float, revision: int) -> Shared:
        await asyncio.sleep(self.delay)
        true = {slot - self.skew * SLOTS_PER_SECOND: number for slot, number in answers.items()}
        found = await self.row.lease(true, turns, interval, revision)
        self.seen.leased += [(found.first_turn + n * interval, interval) for n in range(found.turns)]
        assert not found.turns or found.paused_until <= found.now, "nobody leases turns in a pause"
        await asyncio.sleep(self.delay)
        return replace(
            found,
            now=found.now + self.skew,
            rate=replace(found.rate, since=found.rate.since + self.skew),
            paused_until=found.paused_until + self.skew,
            refused_at=found.refused_at + self.skew,
            answered={slot + self.skew * SLOTS_PER_SECOND: number for slot, number in found.answered.items()},
            first_turn=found.first_turn + self.skew,
        )

    async def relearn(self, rate: LearnedRate, paused_until: float, refused_at: float, revision: int) -> bool:
        await asyncio.sleep(self.delay)
        true = replace(rate, since=rate.since - self.skew)
        done = await self.row.relearn(true, paused_until - self.skew, refused_at - self.skew, revision)
        if done:
            now = asyncio.get_running_loop().time()
            self.seen.pauses.append((now, paused_until - self.skew, paused_until - self.skew - EPOCH))
        await asyncio.sleep(self.delay)
        return done


async def ended(workers: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.gather(*workers, return_exceptions=True)


class Workers(RuleBasedStateMachine):
    """Workers that come, die and are refused."""

    loop: asyncio.AbstractEventLoop
    clocks_can_be_moved = True
    longest_step = 3.0

    def row(self) -> AbstractAsyncContextManager[Row]:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()
        self.workers: dict[int, asyncio.Task[None]] = {}
        self.refused_until = -math.inf
        self.pause = 0.0
        self.refused: set[int] = set()
        self.number = 0
        self.busy_since = math.inf
        self.slowest = 0.0

    @initialize(per_minute=st.sampled_from([None, 600, 6000, 20]))
    def begin(self, per_minute: int | None) -> None:
        self.per_minute = per_minute
        self.come(0, 0.0, 2)
        self.come(-7, 0.001, 4)

    @precondition(lambda self: len(self.workers) < 5)
    @rule(skew=st.integers(-(10**5), 10**5), delay=st.sampled_from([0.0, 0.001, 0.01]), questions=st.integers(1, 6))
    def come(self, skew: int, delay: float, questions: int) -> None:
        self.number += 1
        if not self.workers:
            self.busy_since = self.loop.time()
        self.slowest = max(self.slowest, delay)
        self.workers[self.number] = self.loop.create_task(self.work(self.number, skew, delay, questions))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """As by kill -9: whatever it had leased or not yet told is gone with it."""
        worker = self.workers.pop(data.draw(st.sampled_from(sorted(self.workers))))
        worker.cancel()
        self.finish(ended([worker]))
        if not self.workers:
            self.busy_since = math.inf

    @precondition(lambda self: self.workers)
    @rule(seconds=st.floats(0.01, 0.15), pause=st.floats(0.3, 4.0), data=st.data())
    def refuse(self, seconds: float, pause: float, data: st.DataObject) -> None:
        """Refuse all requests for some seconds, or those of one worker: the first, and what is in flight then."""
        self.refused = data.draw(st.sampled_from([{*self.workers}, *({number} for number in sorted(self.workers))]))
        self.refused_until, self.pause = self.loop.time() + seconds, pause
        self.finish(asyncio.sleep(seconds + 2 * LEASE_SECONDS))

    @rule(share=st.floats(0.01, 1.0))
    def go_on(self, share: float) -> None:
        self.finish(asyncio.sleep(share * self.longest_step))

    def finish(self, what: Any) -> None:
        self.loop.run_until_complete(what)
        assert not [worker for worker in self.workers.values() if worker.done()], "no worker fails"

    async def work(self, number: int, skew: int, delay: float, questions: int) -> None:
        async with (
            self.row() as row,
            SharedPace(Watched(row, self.seen, skew, delay), self.per_minute) as pace,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(questions):
                group.create_task(self.ask(number, pace))

    async def ask(self, number: int, pace: SharedPace) -> None:
        while True:
            asked_at = await pace.turn()
            now = self.loop.time()
            self.seen.asked.append((now, number))
            is_refused = now < self.refused_until and number in self.refused
            await asyncio.sleep(ANSWERED_AFTER)
            if is_refused:
                pace.record_refusal(asked_at, self.pause)
                now = self.loop.time()
                self.seen.stopped.append((number, now, now + self.pause))
            else:
                pace.record_answer(asked_at)

    @invariant()
    def turns_are_distinct_and_apart(self) -> None:
        turns = sorted(self.seen.leased)
        own = 60 / USED / self.per_minute if self.per_minute else 0.0
        for (turn, interval), (following, _) in itertools.pairwise(turns):
            assert following >= turn + max(interval, own) - TINY
        del self.seen.leased[:-100]

    @invariant()
    def a_refused_worker_stops_at_once(self) -> None:
        for number, since, until in self.seen.stopped:
            assert not [at for at, worker in self.seen.asked if worker == number and since < at < until - TINY]

    @invariant()
    def nobody_asks_in_a_pause_and_dead_workers_keep_no_turns(self) -> None:
        if self.clocks_can_be_moved:
            latest = LEASE_SECONDS + self.slowest + TINY
            for since, _, until in self.seen.pauses:
                assert not [at for at, _ in self.seen.asked if since + latest < at < until - TINY]
            self.no_gap()
        self.seen.asked = self.seen.asked[-1000:]

    def no_gap(self) -> None:
        """While a worker lives, somebody asks as soon as the turns of the dead are over: those of a lease, or one."""
        now = self.loop.time()
        interval = max(
            [interval for _, interval in self.seen.leased[-1:]] + [60 / USED / (self.per_minute or math.inf)]
        )
        free_since = max([self.busy_since, *(at for at, _ in self.seen.asked[-1:])])
        free_since = max([free_since, *(until for _, _, until in self.seen.pauses)])
        free_since = max([free_since, *(until for _, _, until in self.seen.stopped)])
        assert now - free_since <= LEASE_SECONDS + 2 * interval + ANSWERED_AFTER + 8 * self.slowest + TINY

    def teardown(self) -> None:
        for worker in self.workers.values():
            worker.cancel()
        self.loop.run_until_complete(ended(self.workers.values()))
        self.loop.close()


def test_workers_that_come_die_and_are_refused_keep_one_pace() -> None:
    class Simulated(Workers):
        def __init__(self) -> None:
            super().__init__()
            self.loop = Loop()
            self.model = Model()

        @asynccontextmanager
        async def row(self) -> AsyncIterator[Row]:
            yield self.model

    run_state_machine_as_test(Simulated, settings=examples(60, stateful_step_count=25))


@pytest.fixture(scope="module")
def rows(postgresql: PostgreSQL) -> PaceRows:
    return PaceRows(Database(url=postgresql.database(unprivileged=True)), migrations.create_pace)


def test_the_row_in_postgresql_does_what_its_model_does(rows: PaceRows) -> None:
    class Real(Workers):
        clocks_can_be_moved = False
        longest_step = 0.3

        def __init__(self) -> None:
            super().__init__()
            self.loop = asyncio.new_event_loop()
            self.key = uuid.uuid4().hex

        def row(self) -> AbstractAsyncContextManager[Row]:
            return rows.row(self.key, "http://127.0.0.1")

    run_state_machine_as_test(Real, settings=examples(8, stateful_step_count=8))


ASK = """
import asyncio, os
from datetime import UTC, datetime
from resources.calls import Calls
from resources.database import Database
from resources.devin_api import DevinAPI
from resources.pace_row import PaceRows
from warehouse.migrations import create_pace

async def main():
    rows = PaceRows(Database(os.environ["WAREHOUSE_URL"]), create_pace)
    api = DevinAPI(os.environ["DEVIN_API_URL"], requests_per_minute=1200, pace_rows=rows)
    async with api.connect(Calls()) as client:
        asked = (client.count(datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC)) for _ in range(40))
        await asyncio.gather(*asked)

asyncio.run(main())
"""


@pytest.fixture
def on_postgresql(rows: PaceRows, world: World) -> World:
    """A world with a warehouse that has nothing but the row."""
    world.configure(warehouse_url=rows.database.url)
    return world


def test_processes_with_one_key_keep_to_one_limit_together(on_postgresql: World) -> None:
    with Sandbox(organizations=5, rate_limit=40) as source:
        on_postgresql.configure(devin_api_url=source.url, devin_api_key=source.api_key)
        asking = [subprocess.Popen([sys.executable, "-c", ASK], cwd=PROJECT) for _ in range(3)]
        assert [process.wait() for process in asking] == [0, 0, 0]
        assert Counter(request.status for request in source.requests) == {200: 120}, "each alone would ask 20 a second"
    assert source.api_key not in repr(on_postgresql.rows("select * from api_pace"))


def test_without_the_row_nothing_is_asked_and_a_sentence_says_why(
    rows: PaceRows, on_postgresql: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with rows.database.transaction() as connection:
        connection.execute(sa.text("drop table if exists api_pace"))
        connection.execute(sa.text("create table api_pace (mine text)"))
    code, shown = in_this_process(capsys, on_postgresql.environment, "probe")
    assert (code, on_postgresql.source.requests) == (exit_codes.WRONG_USE, [])
    assert "No more requests are sent to the API" in " ".join(shown.split())
    assert "an api_pace that this release did not create" in " ".join(shown.split())
    with rows.database.transaction() as connection:
        connection.execute(sa.text("drop table api_pace"))
    code, shown = in_this_process(capsys, on_postgresql.environment, "probe")
    assert "Is the key accepted?" in shown, "where there is no warehouse yet, the row is all that there is"


class Contended(Model):
    """A row that another process changes before each first attempt to change it."""

    is_ahead = False

    async def relearn(self, rate: LearnedRate, paused_until: float, refused_at: float, revision: int) -> bool:
        self.is_ahead = not self.is_ahead
        if self.is_ahead:
            self.revision += 1
        return await super().relearn(rate, paused_until, refused_at, revision)


def test_a_refusal_reaches_the_row_although_others_change_it_at_the_same_time() -> None:
    async def main() -> None:
        row = Contended()
        async with SharedPace(row) as pace:
            pace.record_refusal(await pace.turn(), 2.0)
            await pace.turn()
            assert asyncio.get_running_loop().time() == pytest.approx(2.0, abs=0.01)
            assert row.rate.per_second < math.inf

    run(main())


def test_a_pause_of_another_worker_is_told_and_waited_for_no_longer_than_patience() -> None:
    async def main() -> None:
        now = asyncio.get_running_loop().time
        row, told = Model(), list[Waiting]()
        async with SharedPace(row, on_wait=told.append) as other, SharedPace(row, None, 300, told.append) as pace:
            await pace.turn()
            other.record_refusal(await other.turn(), 20.0)
            await asyncio.sleep(LEASE_SECONDS)
            await pace.turn()
            assert now() == pytest.approx(20.0, abs=0.1)
            assert [waiting.until for waiting in told] == [pytest.approx(20.0, abs=0.01)], "and not to who caused it"
            assert "another process with the same key" in str(told.pop())
            # As if the server's clock had been set back, or the other process had the patience for it.
            row.paused_until, row.revision = EPOCH + 10**6, row.revision + 1
            row.rate = replace(row.rate, since=row.paused_until)
            await asyncio.sleep(1)
            began = now()
            await pace.turn()
            assert now() == pytest.approx(began + 300, abs=0.1)
            assert [waiting.until for waiting in told] == [pytest.approx(now(), abs=0.1)]
            assert row.rate.is_news(now() + EPOCH), "or no refusal would lower the rate until then"

    run(main())


def test_workers_that_begin_together_meet_an_unknown_limit_with_few_refusals_and_then_use_it() -> None:
    latency, limit, seconds = 0.05, 60, 20
    answered: list[float] = []
    refused: list[float] = []

    async def ask(pace: SharedPace) -> None:
        now = asyncio.get_running_loop().time
        while now() < seconds:
            asked_at = await pace.turn()
            await asyncio.sleep(latency / 2)
            is_refused = sum(at > now() - 1 for at in answered[-limit:]) == limit
            (refused if is_refused else answered).append(now())
            await asyncio.sleep(latency / 2)
            if is_refused:
                pace.record_refusal(asked_at, 1.0)
            else:
                pace.record_answer(asked_at)

    async def main() -> None:
        row = Model()
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for _ in range(4):
                pace = await stack.enter_async_context(SharedPace(row))
                for _ in range(16):
                    group.create_task(ask(pace))

    run(main())
    assert len(refused) <= 40, "all 64 requests in flight, if they began as fast as they can"
    assert len(answered) >= 54 * seconds


def test_answers_of_all_workers_count_towards_the_learned_rate() -> None:
    async def main() -> None:
        row = Model()
        async with SharedPace(row) as one, SharedPace(row) as other:
            for pace in (one, other):
                for _ in range(50):
                    pace.record_answer(await pace.turn())
            await asyncio.sleep(LEASE_SECONDS)
            one.record_refusal(await one.turn(), 1.0)
            await other.turn()
            await asyncio.sleep(LEASE_SECONDS)
            assert row.rate.per_second == pytest.approx(94), "of 100 answers in a second"

    run(main())


def test_requests_in_flight_during_a_refusal_and_those_of_workers_that_have_ended_count_too() -> None:
    async def main() -> None:
        row = Model()
        async with SharedPace(row) as pace:
            async with SharedPace(row) as ended:
                for _ in range(20):
                    ended.record_answer(await ended.turn())
            in_flight = [await pace.turn() for _ in range(30)]
            pace.record_refusal(await pace.turn(), 1.0)
            for asked_at in in_flight:
                pace.record_answer(asked_at)
            await pace.turn()
            await asyncio.sleep(LEASE_SECONDS)
            assert row.rate.per_second == pytest.approx(47), "of 50 requests in a second"

    run(main())


def test_while_the_api_is_down_the_probe_takes_the_turns_and_then_everybody_goes_on() -> None:
    async def main() -> None:
        row = Model()
        async with SharedPace(row, 60) as pace:
            await pace.turn()
            waiting = asyncio.create_task(pace.turn())
            pace.hold()
            assert not await pace.is_answered_within(0.5)
            assert asyncio.get_running_loop().time() == pytest.approx(1.0, abs=0.03), "the limit holds for probes"
            await asyncio.sleep(5.0)
            assert not waiting.done()
            pace.record_answer(asyncio.get_running_loop().time())
            await waiting
            await pace.turn()
            assert asyncio.get_running_loop().time() == pytest.approx(7.0, abs=0.1)

    run(main())
