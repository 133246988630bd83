"""How fast requests are sent, on a clock that the tests move: no test waits, and every number is exact."""

import asyncio
import itertools
import math
from collections.abc import Callable

import pytest

from resources.pace import Pace, RefusalTracker
from tests.support.moved_clock import Loop, run


class Source:
    """Answers after `latency` seconds; refuses requests beyond `limit` within a second that began with a request."""

    def __init__(self, limit: Callable[[float], float], latency: float = 0.05) -> None:
        self.limit = limit
        self.latency = latency
        self.window = -1.0
        self.in_window = 0
        self.asked: list[float] = []
        self.refused: list[float] = []

    async def answers(self) -> bool:
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        if now >= self.window + 1:
            self.window, self.in_window = now, 0
        self.in_window += 1
        is_refused = self.in_window > self.limit(now)
        if is_refused:
            self.refused.append(now)
        await asyncio.sleep(self.latency)
        return not is_refused


async def ask_all(source: Source, pace: Pace, questions: int, connections: int, retry_after: float = 1.0) -> float:
    """Send requests until all are answered. Returns the seconds that took."""
    waiting = iter(range(questions))

    async def work() -> None:
        for _ in waiting:
            while True:
                asked_at = await pace.turn()
                if await source.answers():
                    pace.record_answer(asked_at)
                    break
                pace.record_refusal(asked_at, retry_after)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(work())
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(("limit", "connections"), [(20, 16), (200, 16), (200, 64)])
def test_an_unannounced_limit_is_learned_and_rarely_hit(connections: int, limit: int) -> None:
    async def main() -> None:
        source = Source(lambda now: limit)
        questions = limit * 40
        seconds = await ask_all(source, Pace(), questions, connections)
        assert seconds <= 1.25 * questions / limit
        assert len(source.refused) <= 0.05 * len(source.asked)

    run(main())


def test_without_a_limit_no_request_waits() -> None:
    async def main() -> None:
        source = Source(lambda now: 10**9)
        seconds = await ask_all(source, Pace(), 1600, 16)
        assert seconds == pytest.approx(1600 / 16 * source.latency)

    run(main())


def test_one_refusal_pauses_all_requests() -> None:
    async def main() -> None:
        source = Source(lambda now: 30 if now < 1 else 10**9)
        await ask_all(source, Pace(), 200, 10, retry_after=7.0)
        first = source.refused[0]
        under_way = first + source.latency
        assert not [at for at in source.asked if under_way < at < first + 7.0]
        assert [at for at in source.asked if at >= first + 7.0], "and then it continues"

    run(main())


def test_after_a_pause_the_rate_recovers_step_by_step() -> None:
    async def main() -> None:
        source = Source(lambda now: 100 if now < 1 else 10**9)
        await ask_all(source, Pace(), 30_000, 16)
        per_second = [len(list(group)) for _, group in itertools.groupby(source.asked, key=int)][2:-1]
        assert per_second[0] < 110, "at first no faster than the API was seen to allow"
        assert per_second[-1] > 300, "in the end as fast as 16 connections allow"
        assert all(after <= before * 1.1 + 2 for before, after in itertools.pairwise(per_second))

    run(main())


def test_refusals_of_requests_already_in_flight_do_not_lower_the_rate_again() -> None:
    gaps: dict[int, float] = {}

    async def main(refusals: int) -> None:
        pace = Pace()
        for _ in range(100):
            pace.record_answer(0.0)
        asked_at = await pace.turn()
        for _ in range(refusals):
            pace.record_refusal(asked_at, 1.0)
        turns = [await pace.turn() for _ in range(20)]
        gaps[refusals] = turns[-1] - turns[0]

    run(main(1))
    run(main(12))
    assert gaps[12] == pytest.approx(gaps[1])
    assert gaps[1] == pytest.approx(19 / 95, rel=0.05)


def test_a_refusal_before_the_first_answer_does_not_delay_a_small_load() -> None:
    async def main() -> None:
        source = Source(lambda now: 0 if now < 0.01 else 10**9)
        assert await ask_all(source, Pace(), 400, 16) < 20
        assert max(sum(first <= at < first + 1 for at in source.asked[16:]) for first in source.asked[16:30]) < 40

    run(main())


def test_turns_missed_while_the_machine_was_busy_are_not_caught_up_in_a_burst() -> None:
    async def main() -> None:
        pace = Pace()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        for _ in range(100):
            pace.record_answer(0.0)
        pace.record_refusal(await pace.turn(), 1.0)
        turns: list[float] = []

        async def ask() -> None:
            while len(turns) < 300:
                turns.append(await pace.turn())
                if len(turns) == 150:
                    loop.clock.now += 0.3  # no task wakes up for that long

        await asyncio.gather(*(ask() for _ in range(16)))
        assert max(sum(first <= at < first + 1 for at in turns) for first in turns) <= 100

    run(main())


@pytest.mark.parametrize("per_minute", [6, 90, 600])
@pytest.mark.parametrize("seconds", [1, 60])
def test_a_configured_limit_is_exceeded_in_no_minute_or_second_even_if_requests_arrive_unevenly(
    per_minute: int, seconds: int
) -> None:
    async def main() -> None:
        pace = Pace(per_minute)
        turns = sorted(await asyncio.gather(*(pace.turn() for _ in range(per_minute * 2 + 5))))
        arrivals = [turn + (0.018 * (number % 2) if number else 0.1) for number, turn in enumerate(turns)]
        allowed = math.ceil(per_minute * seconds / 60)
        for first, later in zip(arrivals, arrivals[allowed:], strict=False):
            assert later - first >= seconds
        assert turns[-1] <= (2 * 60 + 60 / per_minute * 6) * 1.03, "and it is used up"

    run(main())


def test_an_id_refused_three_times_while_others_are_answered_is_refused_regardless_of_the_rate() -> None:
    refusals = RefusalTracker()
    one, other = ("org-1",), ("org-2",)
    assert not refusals.record_refusal(one, now=1.0, last_answered=-math.inf), "no request was ever answered"
    assert not refusals.record_refusal(one, now=2.0, last_answered=1.5)
    assert not refusals.record_refusal(other, now=2.1, last_answered=1.5)
    assert not refusals.record_refusal(one, now=2.2, last_answered=1.5), "no request was answered in between"
    assert refusals.record_refusal(one, now=3.0, last_answered=2.5)
    assert refusals.record_refusal(one, now=3.1, last_answered=2.5), "and it stays so"
    refusals.record_answer(one)
    assert not refusals.record_refusal(one, now=4.0, last_answered=3.5)


def test_a_refusal_about_no_particular_id_is_always_about_the_rate() -> None:
    refusals = RefusalTracker()
    assert not any(refusals.record_refusal((), now=n + 0.5, last_answered=n) for n in range(10))
