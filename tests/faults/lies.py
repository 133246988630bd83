"""Responses that keep to the contract but are false. Each must be reported, unless no request could reveal it."""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

from resources.sandbox.contract import ORGANIZATIONS_PATH, SESSIONS_PATH
from resources.sandbox.logged_request import LoggedRequest
from tests.faults.cases import Case
from tests.faults.oracle import DatabaseName, Stage

Count = Callable[[Stage, LoggedRequest, int], int]
"""Returns the false count for a request, given the true one."""

DAY = timedelta(days=1)


def _truth(stage: Stage, start: datetime | None, end: datetime | None, org_ids: tuple[str, ...]) -> int:
    assert start and end
    return stage.source.truth(start, end, org_ids or None)


def _ignores_the_window(stage: Stage, asked: LoggedRequest, true: int) -> int:
    start = datetime.combine(stage.first, time(), UTC)
    return _truth(stage, start, start + len(stage.days) * DAY, asked.org_ids)


def _counts_the_end(stage: Stage, asked: LoggedRequest, true: int) -> int:
    assert asked.end
    return _truth(stage, asked.start, asked.end + timedelta(microseconds=1), asked.org_ids)


def _counts_the_day_of_the_end(stage: Stage, asked: LoggedRequest, true: int) -> int:
    assert asked.end
    return _truth(stage, asked.start, asked.end + DAY, asked.org_ids)


def _ignores_organizations(stage: Stage, asked: LoggedRequest, true: int) -> int:
    return _truth(stage, asked.start, asked.end, ())


def _takes_the_first(stage: Stage, asked: LoggedRequest, true: int) -> int:
    return _truth(stage, asked.start, asked.end, asked.org_ids[:1])


def _takes_the_last(stage: Stage, asked: LoggedRequest, true: int) -> int:
    return _truth(stage, asked.start, asked.end, asked.org_ids[-1:])


def _is_total(asked: LoggedRequest) -> bool:
    return not asked.org_ids


def _is_one_day(asked: LoggedRequest) -> bool:
    assert asked.start and asked.end
    return asked.end - asked.start <= DAY


def _total_too_small(stage: Stage, asked: LoggedRequest, true: int) -> int:
    return true - 1 if _is_total(asked) and true else true


def _total_too_large(stage: Stage, asked: LoggedRequest, true: int) -> int:
    return true + 1 if _is_total(asked) else true


def _one_day_too_large(stage: Stage, asked: LoggedRequest, true: int) -> int:
    is_it = asked.start == datetime.combine(stage.days[-2], time(), UTC) and _is_one_day(asked)
    return true + 1 if _is_total(asked) and is_it else true


def _swapped_org_ids(stage: Stage, asked: LoggedRequest) -> tuple[str, ...]:
    a, b = (organization.org_id for organization in stage.source.organizations[:2])
    return tuple({a: b, b: a}.get(org_id, org_id) for org_id in asked.org_ids)


def _swaps(stage: Stage, asked: LoggedRequest, true: int) -> int:
    return _truth(stage, asked.start, asked.end, _swapped_org_ids(stage, asked))


def _swaps_single_days(stage: Stage, asked: LoggedRequest, true: int) -> int:
    return _swaps(stage, asked, true) if _is_one_day(asked) else true


def _all_zero(stage: Stage, asked: LoggedRequest, true: int) -> int:
    return 0


def _shifted(stage: Stage, asked: LoggedRequest, true: int) -> int:
    assert asked.start and asked.end
    return _truth(stage, asked.start - DAY, asked.end - DAY, asked.org_ids)


def _cells_zero(stage: Stage, asked: LoggedRequest, true: int) -> int:
    return 0 if asked.org_ids else true


def _never_the_same_twice() -> Count:
    requests = itertools.count()
    return lambda stage, asked, true: true + next(requests) % 3


def _absurd_total(count: int) -> Count:
    def answer(stage: Stage, asked: LoggedRequest, true: int) -> int:
        is_it = asked.start == datetime.combine(stage.days[3], time(), UTC) and _is_one_day(asked)
        return count if is_it and _is_total(asked) else true

    return answer


def _absurd_cell(stage: Stage, asked: LoggedRequest, true: int) -> int:
    return 10**13 if _is_one_day(asked) and asked.org_ids == (stage.source.organizations[0].org_id,) else true


COUNTS: dict[str, Callable[[], Count]] = {
    "ignores the window": lambda: _ignores_the_window,
    "counts the end": lambda: _counts_the_end,
    "counts the day of the end": lambda: _counts_the_day_of_the_end,
    "ignores org_ids": lambda: _ignores_organizations,
    "takes only the first of org_ids": lambda: _takes_the_first,
    "takes only the last of org_ids": lambda: _takes_the_last,
    "totals one too small": lambda: _total_too_small,
    "totals one too large": lambda: _total_too_large,
    "one day's total one too large": lambda: _one_day_too_large,
    "two organizations swapped on single days": lambda: _swaps_single_days,
    "two organizations swapped": lambda: _swaps,
    "every organization zero": lambda: _cells_zero,
    "everything zero": lambda: _all_zero,
    "everything shifted": lambda: _shifted,
    "never the same twice": _never_the_same_twice,
    "total of 2^63-1": lambda: _absurd_total(2**63 - 1),
    "total of 10^12+1": lambda: _absurd_total(10**12 + 1),
    "cells of 10^13": lambda: _absurd_cell,
}
UNDETECTABLE = {
    "everything zero": "an API that always returns 0 looks like one without sessions",
    "everything shifted": "an API that shifts every window agrees with itself",
    "two organizations swapped": "an API that swaps two organizations in every response agrees with itself",
}
UNDETECTABLE_BY_DIRECT = {
    "two organizations swapped on single days": "a direct load never requests several days of an organization at once",
}
# A direct load requests one organization at a time, so there is no first or last of several.
ONLY_DIFFERENCED = {"takes only the first of org_ids", "takes only the last of org_ids"}


def _omits_one(page: Any) -> Any:
    return {**page, "items": page["items"][1:], "total": page["total"] - 1}


def _omits_one_but_counts_it(page: Any) -> Any:
    return {**page, "items": page["items"][1:]}


def _repeats_one(page: Any) -> Any:
    return {**page, "items": [page["items"][0], *page["items"]], "total": page["total"] + 1}


def _counts_one_more(page: Any) -> Any:
    return {**page, "total": page["total"] + 1}


def _counts_none(page: Any) -> Any:
    return {**page, "total": 0}


LISTS: dict[str, Callable[[Any], Any]] = {
    "list omits one": _omits_one,
    "list omits one, its total doesn't": _omits_one_but_counts_it,
    "list repeats one": _repeats_one,
    "list's total is one too large": _counts_one_more,
    "list's total is zero": _counts_none,
}


def cases(seed: int) -> Iterator[Case]:
    """Each lie with each way to fetch, over a block and over one night's days; some on PostgreSQL too."""
    number = 0
    for fetch, days in (("differenced", 12), ("direct", 12), ("direct", 5)):
        for lie in (*COUNTS, *LISTS):
            if lie in ONLY_DIFFERENCED and fetch == "direct":
                continue
            number += 1
            undetectable = UNDETECTABLE | (UNDETECTABLE_BY_DIRECT if fetch == "direct" else {})
            databases: list[DatabaseName] = ["duckdb", "postgresql"] if number % 4 == 0 else ["duckdb"]
            for database in databases:
                yield Case(
                    family="lies",
                    name=f"{lie} ({fetch}, {days} days)" + " on PostgreSQL" * (database == "postgresql"),
                    play=_play_list(lie) if lie in LISTS else _play_count(lie, lie in undetectable),
                    database=database,
                    days=70 if lie in ONLY_DIFFERENCED else days,
                    settings={"DEVIN_FETCH": fetch},
                    # Only organizations without sessions in the previous block are requested together.
                    organizations=12 if lie in ONLY_DIFFERENCED else 5,
                    undetectable=undetectable.get(lie, ""),
                    is_quick=database == "duckdb" and (lie, fetch) == ("ignores the window", "direct") and days == 12,
                )
    for database in ("duckdb", "postgresql"):
        for fetch in ("differenced", "direct"):
            yield Case(
                family="lies",
                name=f"changes while it is read ({fetch}) on {database}",
                play=_change_meanwhile,
                database=database,
                settings={"DEVIN_FETCH": fetch},
                is_quick=(database, fetch) == ("duckdb", "differenced"),
            )


def _play_count(lie: str, is_undetectable: bool) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        for day in stage.days[1:]:  # sessions at the very moment at which a day ends
            stage.source.add_sessions(stage.source.organizations[0].org_id, datetime.combine(day, time(), UTC))
        if lie in ONLY_DIFFERENCED:
            # Without sessions in two blocks, they are requested together in the third.
            begin = datetime.combine(stage.first, time(), UTC)
            for organization in stage.source.organizations[-6:]:
                stage.source.remove_sessions(organization.org_id, begin, begin + 62 * DAY)
        answer = COUNTS[lie]()

        def rewrite(asked: LoggedRequest, true: Any) -> Any:
            return {**true, "sessions_count": answer(stage, asked, true["sessions_count"])}

        _run_and_judge(stage, {"rewrite": rewrite, "path": SESSIONS_PATH}, is_undetectable)

    return play


def _play_list(lie: str) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        if "omits one" in lie:
            stage.unlisted.add(stage.source.organizations[0].org_id)
        _run_and_judge(stage, {"rewrite": lambda asked, page: LISTS[lie](page), "path": ORGANIZATIONS_PATH}, False)

    return play


def _run_and_judge(stage: Stage, lie: dict[str, Any], is_undetectable: bool) -> None:
    fault = stage.source.fail(**lie, times=None)
    ended = stage.run(*stage.backfill)
    stage.verdict.fired = fault.hits > 0
    stage.judge(ended)
    if is_undetectable:
        stage.verdict.wrong.clear()
        stage.verdict.silent.clear()
    stage.source.heal()
    stage.unlisted.clear()
    stage.judge_healed("--refresh")


def _change_meanwhile(stage: Stage) -> None:
    """No lie: sessions are added between requests. What is stored was true when it was read, or is reported."""
    requests = itertools.count(1)
    struck = 0
    noon = datetime.combine(stage.days[5], time(12), UTC)
    organizations = stage.source.organizations

    def change(asked: LoggedRequest) -> bool:
        nonlocal struck
        if next(requests) % 9 == 0 and struck < 6:
            struck += 1
            stage.remember_truth()
            stage.source.add_sessions(organizations[struck % 3].org_id, noon + struck * DAY / 2, 2)
        return False

    stage.source.fail(status=500, when=change, path=SESSIONS_PATH, times=None)
    ended = stage.run(*stage.backfill)
    stage.verdict.fired = struck > 0
    stage.judge(ended)
    stage.source.heal()
    stage.forget_truths()
    stage.judge_healed("--refresh")
