"""Which questions are asked, and what becomes of their answers; the source here is a function."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest

from pipelines import collect
from pipelines.partitions import Day

DAYS = [
    Day(date(2025, 1, 1) + timedelta(n), *(datetime(2025, 1, 1, tzinfo=UTC) + timedelta(n + m) for m in (0, 1)))
    for n in range(5)
]
ORGS = ["a", "b", "c"]


def run(count: collect.Count, workers: int = 4) -> list[collect.DayAnswers]:
    return asyncio.run(
        collect.direct(count, DAYS, ORGS, workers=workers, bearable=(OSError,), answered=lambda cells: None)
    )


def test_each_control_total_and_each_cell_is_asked_once() -> None:
    asked: list[tuple[date, tuple[str, ...]]] = []

    async def count(day: Day, org_ids: Sequence[str]) -> int:
        asked.append((day.day, tuple(org_ids)))
        return day.day.day * 10 + len(org_ids)

    answers = run(count)
    assert sorted(asked) == sorted((day.day, filters) for day in DAYS for filters in [(), ("a",), ("b",), ("c",)])
    for answer in answers:
        assert answer.is_whole
        assert answer.calls == 4
        assert answer.control_total == answer.day.day.day * 10
        assert answer.counts == dict.fromkeys(ORGS, answer.day.day.day * 10 + 1)


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_questions_are_under_way_than_there_are_workers(workers: int) -> None:
    under_way = most = 0

    async def count(day: Day, org_ids: Sequence[str]) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return 0

    run(count, workers)
    assert most == workers


def test_a_bearable_failure_leaves_only_its_day_not_whole() -> None:
    async def count(day: Day, org_ids: Sequence[str]) -> int:
        if day is DAYS[2] and tuple(org_ids) == ("b",):
            raise OSError("no answer")
        return 1

    answers = run(count)
    assert [answer.is_whole for answer in answers] == [True, True, False, True, True]
    assert "b" not in answers[2].counts, "a failure never becomes a number"
    assert [str(error) for error in answers[2].failures] == ["no answer"]


def test_any_other_failure_stops_all_questions_and_is_raised_itself() -> None:
    asked = 0

    async def count(day: Day, org_ids: Sequence[str]) -> int:
        nonlocal asked
        asked += 1
        raise PermissionError if asked == 3 else LookupError

    with pytest.raises(LookupError):
        run(count, workers=1)
    assert asked == 1


def test_progress_is_told_of_every_settled_cell() -> None:
    settled: list[int] = []

    async def count(day: Day, org_ids: Sequence[str]) -> int:
        if day is DAYS[0] and org_ids:
            raise OSError
        return 1

    asyncio.run(collect.direct(count, DAYS, ORGS, workers=2, bearable=(OSError,), answered=settled.append))
    assert sum(settled) == 4 * 3
    assert len(settled) == 5 + 4 * 3
