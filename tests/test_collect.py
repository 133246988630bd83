"""Which questions are asked, and what becomes of their answers; the API is a function over a matrix here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.loading.answers import DayAnswers
from pipelines.loading.collect import collect_differenced, collect_direct
from tests.support.examples import examples
from tests.support.matrix import FIRST, ORGS, Source, collected, worlds


def direct(source: Source, org_ids: Sequence[str], workers: int = 4) -> list[DayAnswers]:
    return collected(collect_direct, source, source.number_of_days, org_ids, workers)


def differenced(
    source: Source, org_ids: Sequence[str], workers: int = 4, expected: dict[str, float] | None = None
) -> list[DayAnswers]:
    return collected(collect_differenced, source, source.number_of_days, org_ids, workers, expected=expected or {})


@pytest.mark.parametrize(("ask", "totals"), [(collect_direct, 6), (collect_differenced, 6 + 2)])
def test_only_totals_are_asked_before_a_block_may_proceed(ask: Callable[..., Any], totals: int) -> None:
    source = Source({("org-0", 0): 3, ("org-1", 4): 2}, 6)
    asked_before: list[int] = []

    async def may_proceed() -> None:
        asked_before.append(len(source.asked))

    options: dict[str, Any] = {} if ask is collect_direct else {"expected": {}}
    collected(ask, source, 6, ["org-0", "org-1"], 4, may_proceed=may_proceed, **options)
    assert asked_before == [totals]
    assert len(source.asked) > totals


ASK = pytest.mark.parametrize("ask", [direct, differenced])


@examples(25)
@given(worlds())
def test_while_the_source_is_consistent_every_cell_is_exact_and_questions_are_bounded(
    world: tuple[Source, list[str], dict[str, float], int],
) -> None:
    source, orgs, expected, workers = world
    answers = differenced(source, orgs, workers, expected)
    for number, of_day in enumerate(answers):
        assert of_day.is_whole
        assert of_day.counts == {org_id: source.truth(org_id, number) for org_id in orgs}
        assert of_day.rest == source.truth("hidden", number)
        asked_itself = {
            org_ids[0]
            for first, last, org_ids in source.asked
            if (first, last) == (number, number + 1) and len(org_ids) == 1
        }
        assert of_day.known_by("derived") == set(orgs) - asked_itself
    assert len(source.asked) <= len(orgs) * len(answers) + len(answers) + len(orgs) + 2
    assert not any(of_day.contradictions for of_day in answers)
    assert sum(of_day.calls for of_day in answers) == pytest.approx(len(source.asked))


@examples(25)
@given(worlds(), st.data())
def test_when_the_source_changes_between_two_questions_each_cell_is_true_or_its_day_is_flagged(
    world: tuple[Source, list[str], dict[str, float], int], data: st.DataObject
) -> None:
    source, orgs, expected, workers = world
    before = dict(source.cells)
    changed = (data.draw(st.sampled_from([*orgs, "hidden"])), data.draw(st.integers(0, source.number_of_days - 1)))
    change = data.draw(st.integers(-3, 3))
    source.changes = {data.draw(st.integers(0, 60)): (changed, change)}
    answers = differenced(source, orgs, workers, expected)
    for number, of_day in enumerate(answers):
        for org_id in orgs:
            truths = {before.get((org_id, number), 0), source.truth(org_id, number)}
            hidden = {before.get(("hidden", number), 0), source.truth("hidden", number)}
            is_flagged = of_day.rest != 0 and of_day.rest not in hidden
            assert of_day.counts[org_id] in truths or is_flagged, (org_id, number)
    assert len(source.asked) <= 2 * (len(orgs) * len(answers) + len(answers) + len(orgs) + 2)


@examples(25)
@given(worlds(), st.randoms(use_true_random=False))
def test_random_answers_cost_a_bounded_number_of_questions(
    world: tuple[Source, list[str], dict[str, float], int], dice: Random
) -> None:
    source, orgs, expected, workers = world
    asked = 0

    async def nonsense(start: datetime, end: datetime, org_ids: Sequence[str]) -> int:
        nonlocal asked
        asked += 1
        return dice.choice([0, 0, 1, 2, 7, 10**6])

    answers = collected(collect_differenced, nonsense, source.number_of_days, orgs, workers, expected=expected)
    assert asked <= 2 * (len(orgs) * len(answers) + len(answers) + len(orgs) + 2)
    for of_day in answers:
        assert of_day.is_whole
        assert set(of_day.counts) == set(orgs), "no cell is left open"
        assert all(number >= 0 for number in of_day.counts.values())


def test_direct_asks_each_control_total_and_each_cell_once() -> None:
    source = Source({("a", 0): 3, ("b", 1): 4, ("hidden", 1): 2}, 3)
    answers = direct(source, ["a", "b"])
    cells_and_totals = [(d, d + 1, orgs) for d in range(3) for orgs in [(), ("a",), ("b",)]]
    assert sorted(source.asked) == sorted([*cells_and_totals, (0, 3, ())])
    assert [a.counts for a in answers] == [{"a": 3, "b": 0}, {"a": 0, "b": 4}, {"a": 0, "b": 0}]
    assert [a.rest for a in answers] == [0, 2, 0]
    assert not any(a.known_by("derived", "listed") for a in answers)


def test_a_zero_total_settles_everything_below_it() -> None:
    source = Source({("a", day): 1 for day in range(10)}, 10)
    differenced(source, ["a", "b", "c"])
    assert [question for question in source.asked if set(question[2]) & {"b", "c"}] == [
        (0, 10, ("b",)),
        (0, 10, ("c",)),
    ]


def test_quiet_organizations_share_a_question_and_busy_ones_do_not() -> None:
    orgs = [f"quiet-{n}" for n in range(120)] + ["busy"]
    source = Source({("busy", 0): 9}, 4)
    differenced(source, orgs, expected=dict.fromkeys(orgs[:-1], 0.0001) | {"busy": 3.0})
    assert sorted(len(org_ids) for _, _, org_ids in source.asked if org_ids) == [1, 20, 50, 50]


@ASK
@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_questions_are_under_way_than_there_are_workers(
    ask: Callable[..., list[DayAnswers]], workers: int
) -> None:
    under_way = most = 0
    source = Source({(org_id, day): 1 for org_id in "abcd" for day in range(9)}, 9)
    inner = source.__call__

    class Watched(Source):
        async def __call__(self, start: datetime, end: datetime, org_ids: Sequence[str]) -> int:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            number = await inner(start, end, org_ids)
            under_way -= 1
            return number

    ask(Watched({}, 9), list("abcd"), workers)
    assert most == workers


def test_a_failed_cell_fails_only_its_day() -> None:
    source = Source({("a", 0): 1, ("b", 2): 2}, 4)
    asked = iter(range(100))
    source.refuses = lambda org_ids, days: OSError("no answer") if org_ids == ("b",) and next(asked) == 2 else None
    answers = direct(source, ["a", "b"], workers=1)
    assert [a.is_whole for a in answers] == [True, False, True, True], "the last day and the first come before it"
    assert "b" not in answers[1].counts, "a failure never becomes a number"
    assert [str(error) for error in answers[1].failures] == ["no answer"]


@ASK
def test_an_organization_without_any_answer_is_asked_about_on_three_days_and_fails_all(ask: Any) -> None:
    source = Source({(org_id, day): 1 for org_id in ORGS for day in range(12)}, 12)
    source.refuses = lambda org_ids, days: OSError(f"{org_ids}") if "org-3" in org_ids else None
    answers = ask(source, ORGS, workers=1)
    assert [str(a.failures[0]) for a in answers] == ["('org-3',)"] * 12
    on = [first for first, last, org_ids in source.asked if org_ids == ("org-3",) and last - first == 1]
    assert sorted(on) == [0, 1, 11]


@ASK
@pytest.mark.parametrize("bad", [{0, 1, 2}, {9, 10, 11}, {0, 5, 11}])
def test_an_organization_with_an_answer_on_one_day_is_asked_about_on_all(ask: Any, bad: set[int]) -> None:
    source = Source({(org_id, day): day + 1 for org_id in ORGS for day in range(12)}, 12)

    async def count(start: datetime, end: datetime, org_ids: Sequence[str]) -> int:
        if "org-3" in org_ids and any(FIRST + timedelta(day) < end and start <= FIRST + timedelta(day) for day in bad):
            source.asked.append(((start - FIRST).days, (end - FIRST).days, tuple(org_ids)))
            raise OSError("unavailable")
        return await source(start, end, org_ids)

    options: dict[str, Any] = {"expected": {}} if ask is differenced else {}
    function = collect_differenced if ask is differenced else collect_direct
    answers = collected(function, count, 12, ORGS, 1, **options)
    whole = {day for day, a in enumerate(answers) if a.is_whole}
    assert whole == {*range(12)} - bad
    assert all(answers[day].counts == {org_id: day + 1 for org_id in ORGS} for day in whole)


def test_a_day_that_fails_every_range_over_it_is_the_only_one_that_fails() -> None:
    cells = {(org_id, day): 1 + day for org_id in "abc" for day in range(9)}
    source = Source(cells, 9)

    def refuses(org_ids: Sequence[str], days: int) -> Exception | None:
        first, last, _ = source.asked[-1]
        return OSError("bad day") if "b" in org_ids and first <= 4 < last else None

    source.refuses = refuses
    answers = differenced(source, list("abc"))
    assert [a.is_whole for a in answers] == [day != 4 for day in range(9)]
    for number, of_day in enumerate(answers):
        if of_day.is_whole:
            assert of_day.counts == dict.fromkeys("abc", 1 + number)


@ASK
def test_a_source_that_stops_answering_is_soon_left_alone(ask: Callable[..., list[DayAnswers]]) -> None:
    orgs = [f"org-{n}" for n in range(200)]
    source = Source({(org_id, day): 1 for org_id in orgs for day in range(10)}, 10)
    source.refuses = lambda org_ids, days: OSError("gone") if len(source.asked) > 10 else None
    answers = ask(source, orgs, 1)
    assert not any(a.is_whole for a in answers)
    assert len(source.asked) <= 10 + len(orgs) + 10


@ASK
def test_a_refused_organization_is_left_out_and_the_others_are_exact(
    ask: Callable[..., list[DayAnswers]],
) -> None:
    cells = {(org_id, day): 1 + day for org_id in "abc" for day in range(6)}
    source = Source(cells, 6, refuses=lambda org_ids, days: PermissionError("not yours") if "b" in org_ids else None)
    answers = (
        ask(source, list("abc"), expected={"a": 0.01, "b": 0.01}) if ask is differenced else ask(source, list("abc"))
    )
    for number, of_day in enumerate(answers):
        assert of_day.is_whole
        assert of_day.counts == {"a": 1 + number, "c": 1 + number}
        assert [str(of_day.refused[org_id]) for org_id in of_day.refused] == ["not yours"]
        assert of_day.rest == 1 + number, "sessions that cannot be counted are in the rest"


def test_a_source_that_refuses_ranges_is_asked_day_by_day() -> None:
    cells = {(org_id, day): 1 + day for org_id in "ab" for day in range(6)}

    def refuses(org_ids: Sequence[str], days: int) -> Exception | None:
        return PermissionError("too long") if days > 1 and org_ids else None

    answers = differenced(Source(cells, 6, refuses=refuses), list("ab"))
    for number, of_day in enumerate(answers):
        assert of_day.is_whole
        assert not of_day.refused
        assert of_day.counts == {"a": 1 + number, "b": 1 + number}


@ASK
def test_any_other_failure_stops_all_questions_and_is_raised(
    ask: Callable[..., list[DayAnswers]],
) -> None:
    source = Source({}, 5, refuses=lambda org_ids, days: LookupError("stop"))
    with pytest.raises(LookupError, match="stop"):
        ask(source, ["a", "b"], 1)
    assert len(source.asked) == 1


@ASK
def test_every_settled_cell_is_reported_once(ask: Callable[..., list[DayAnswers]]) -> None:
    settled = 0

    def answered() -> None:
        nonlocal settled
        settled += 1

    source = Source({("a", 0): 1, ("b", 2): 2, ("hidden", 1): 1}, 4)
    options: dict[str, Any] = {"expected": {}} if ask is differenced else {}
    function = collect_differenced if ask is differenced else collect_direct
    collected(function, source, 4, ["a", "b"], 2, answered, **options)
    assert settled == 8


def test_a_change_that_equals_the_rest_of_another_day_does_not_hide_it() -> None:
    # Three hidden sessions on day 1; three more appear on day 0 after its control total was asked. All sums agree.
    source = Source({("hidden", 1): 3}, 3, changes={1: (("org-0", 0), 3)})
    answers = differenced(source, ["org-0", "org-1", "org-2"], workers=1)
    assert answers[1].counts == dict.fromkeys(["org-0", "org-1", "org-2"], 0)
    assert answers[1].rest == 3


# Days must add up to their block


@dataclass
class Shifted(Source):
    """A source with one session of "a" on each day that counts over a different window than it is asked about."""

    window: Callable[[int, int], tuple[int, int]] = lambda first, last: (first, last)

    async def __call__(self, start: datetime, end: datetime, org_ids: Sequence[str]) -> int:
        await super().__call__(start, end, org_ids)
        return self.counted((start - FIRST).days, (end - FIRST).days) if org_ids in ((), ("a",), ["a"]) else 0

    def counted(self, first: int, last: int) -> int:
        start, end = self.window(first, last)
        return sum(n for (_, day), n in self.cells.items() if start <= day < end)


@ASK
@pytest.mark.parametrize("number_of_days", [1, 2, 7])
@pytest.mark.parametrize(
    "window",
    [lambda first, last: (-1, 8), lambda first, last: (first, last + 1), lambda first, last: (last - 1, last)],
    ids=["ignores the window", "counts the end", "counts the last day alone"],
)
def test_days_that_do_not_add_up_to_their_block_after_a_second_reading_are_a_contradiction(
    ask: Callable[..., list[DayAnswers]], number_of_days: int, window: Callable[[int, int], tuple[int, int]]
) -> None:
    source = Shifted({("a", day): 1 for day in range(-1, 9)}, number_of_days, window=window)
    answers = ask(source, ["a", "b"])
    first = -1 if number_of_days == 1 else 0
    by_day = sum(source.counted(day, day + 1) for day in range(first, number_of_days))
    for of_day in answers:
        (found,) = [c for c in of_day.contradictions if c.org_id is None]
        assert (found.in_one, found.by_day) == (source.counted(first, number_of_days), by_day)
        assert [(found.first.start - FIRST).days, (found.last.end - FIRST).days] == [first, number_of_days]
    assert source.asked.count((first, number_of_days, ())) == 2, "it is read a second time, but not a third"


@examples(25)
@given(worlds(), st.data())
def test_direct_does_not_report_a_change_between_two_questions_as_a_contradiction(
    world: tuple[Source, list[str], dict[str, float], int], data: st.DataObject
) -> None:
    source, orgs, _, workers = world
    changed = (data.draw(st.sampled_from(orgs)), data.draw(st.integers(0, source.number_of_days - 1)))
    questions = (len(orgs) + 1) * source.number_of_days
    source.changes = {data.draw(st.integers(0, questions)): (changed, data.draw(st.integers(1, 3)))}
    answers = direct(source, orgs, workers)
    assert not any(of_day.contradictions for of_day in answers)
    for number, of_day in enumerate(answers):
        is_flagged = of_day.rest != source.truth("hidden", number)
        assert is_flagged or of_day.counts == {org_id: source.truth(org_id, number) for org_id in orgs}


def test_direct_reads_a_day_again_whose_cells_exceed_its_total() -> None:
    source = Source({("a", day): 1 for day in range(3)}, 3)
    source.changes = {4: (("a", 1), 2)}  # after the totals, before its cell
    answers = direct(source, ["a", "b"], workers=1)
    assert [of_day.counts for of_day in answers] == [{"a": 1, "b": 0}, {"a": 3, "b": 0}, {"a": 1, "b": 0}]
    assert [of_day.rest for of_day in answers] == [0, 0, 0]
    again = [asked for asked in source.asked if source.asked.count(asked) > 1]
    assert set(again) == {(1, 2, ()), (1, 2, ("a",)), (1, 2, ("b",))}


@ASK
def test_cells_that_exceed_their_days_total_are_kept_and_their_excess_is_a_negative_rest(
    ask: Callable[..., list[DayAnswers]],
) -> None:
    class Forgetful(Source):
        async def __call__(self, start: datetime, end: datetime, org_ids: Sequence[str]) -> int:
            number = await super().__call__(start, end, org_ids)
            return 0 if self.asked[-1] == (1, 2, ()) else number

    answers = ask(Forgetful({(org_id, day): 1 + day for org_id in "ab" for day in range(3)}, 3), ["a", "b"])
    assert [of_day.counts for of_day in answers] == [{"a": 1 + day, "b": 1 + day} for day in range(3)]
    assert [of_day.rest for of_day in answers] == [0, -4, 0]


def test_days_around_one_that_fails_are_compared_with_their_own_totals() -> None:
    source = Source({("a", day): 1 for day in range(7)}, 7)

    def refuses(org_ids: Sequence[str], days: int) -> Exception | None:
        return OSError("no answer") if source.asked[-1][:2] == (3, 4) else None

    source.refuses = refuses
    answers = direct(source, ["a"])
    assert [a.is_whole for a in answers] == [day != 3 for day in range(7)]
    ranges = [(first, last) for first, last, org_ids in source.asked if last - first > 1]
    assert sorted(ranges) == [(0, 3), (4, 7)]


def test_an_organization_whose_total_differs_from_its_days_after_a_second_reading_is_a_contradiction() -> None:
    class Boasting(Source):
        async def __call__(self, start: datetime, end: datetime, org_ids: Sequence[str]) -> int:
            number = await super().__call__(start, end, org_ids)
            return number + 5 if "b" in org_ids and (end - start).days > 1 else number

    source = Boasting({(org_id, day): 1 for org_id in "ab" for day in range(6)}, 6)
    answers = differenced(source, ["a", "b", "c"], expected={"b": 0.01, "c": 0.01})
    for of_day in answers:
        assert of_day.counts == {"a": 1, "b": 1, "c": 0}
        (found,) = of_day.contradictions
        assert (found.org_id, found.in_one, found.by_day) == ("b", 11, 6)
