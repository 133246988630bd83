"""Counts from the list of sessions are proven by totals, however the list lies; the API is a matrix here."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.loading.answers import DayAnswers
from pipelines.loading.collect import collect_listed
from pipelines.loading.listed import ListVerdict, Proposal, windows_of
from tests.support.examples import examples
from tests.support.matrix import Source, collected, worlds

Listed = list[Counter[str | None]]
Lie = Callable[[Listed, random.Random], None]


def true_list(source: Source) -> Listed:
    """The sessions of each id on each day, without any lie."""
    listed: Listed = [Counter() for _ in range(source.number_of_days)]
    for (org_id, day), number in source.cells.items():
        listed[day][org_id] += number
    return listed


def from_list(
    source: Source, org_ids: Sequence[str], proposal: Proposal | None, workers: int = 4, sampled: int = 0, seed: int = 1
) -> tuple[list[DayAnswers], list[ListVerdict]]:
    verdicts: list[ListVerdict] = []

    async def propose(answers: Sequence[DayAnswers]) -> Proposal | None:
        assert all(of_day.control_total is not None for of_day in answers)
        return proposal

    options: dict[str, Any] = dict(
        propose=propose, judged=verdicts.append, sampled=sampled, dice=random.Random(seed), expected={}
    )
    return collected(collect_listed, source, source.number_of_days, org_ids, workers, **options), verdicts


def cells_of(listed: Listed) -> list[tuple[int, str | None]]:
    return [(day, id_) for day, of_day in enumerate(listed) for id_, number in of_day.items() if number]


def leaves_out(listed: Listed, dice: random.Random) -> None:
    for day, id_ in dice.sample(cells := cells_of(listed), min(3, len(cells))):
        listed[day][id_] -= dice.randint(1, listed[day][id_])


def doubles(listed: Listed, dice: random.Random) -> None:
    for day, id_ in dice.sample(cells := cells_of(listed), min(3, len(cells))):
        listed[day][id_] += dice.randint(1, listed[day][id_])


def leaves_out_organizations(listed: Listed, dice: random.Random) -> None:
    for of_day in listed:
        for id_ in ("org-0", "org-3"):
            of_day.pop(id_, None)


def moves(listed: Listed, dice: random.Random) -> None:
    for day, id_ in dice.sample(cells := cells_of(listed), min(2, len(cells))):
        number = dice.randint(1, listed[day][id_])
        listed[day][id_] -= number
        listed[day][dice.choice(["org-0", "org-1", "org-2", "unheard of", None])] += number


def shifts(listed: Listed, dice: random.Random) -> None:
    for day, id_ in cells_of(listed[:-1]):
        number = dice.randint(0, listed[day][id_])
        listed[day][id_] -= number
        listed[day + 1][id_] += number


def swaps(listed: Listed, dice: random.Random) -> None:
    """Two organizations change places on one day: its sum stays right."""
    of_day = dice.choice(listed)
    of_day["org-0"], of_day["org-1"] = of_day["org-1"], of_day["org-0"]


LIES: list[Lie] = [leaves_out, doubles, leaves_out_organizations, moves, shifts, swaps]


@examples(60)
@given(worlds(), st.lists(st.sampled_from(LIES), max_size=2), st.integers(0, 3), st.integers(0, 999))
def test_no_count_is_wrong_unless_moves_cancel_out_in_every_day_and_organization(
    world: tuple[Source, list[str], dict[str, float], int], lies: list[Lie], sampled: int, seed: int
) -> None:
    source, orgs, _, workers = world
    listed, truth, dice = true_list(source), true_list(source), random.Random(seed)
    for lie in lies:
        lie(listed, dice)
    cancels_out = all(one.total() == other.total() for one, other in zip(listed, truth, strict=True)) and all(
        sum(of_day[id_] for of_day in listed) == sum(of_day[id_] for of_day in truth) for id_ in orgs
    )
    differs = any(one[id_] != other[id_] for one, other in zip(listed, truth, strict=True) for id_ in orgs)
    assume(not (cancels_out and differs))
    answers, (verdict,) = from_list(source, orgs, listed, workers, sampled, seed)
    for number, of_day in enumerate(answers):
        assert of_day.is_whole
        assert of_day.counts == {org_id: source.truth(org_id, number) for org_id in orgs}
        assert of_day.rest == source.truth("hidden", number)
        assert not of_day.contradictions
        assert of_day.known_by("listed") == set() or verdict is ListVerdict.PROVEN
    if not lies:
        assert verdict is ListVerdict.PROVEN
        questions = source.number_of_days + 2 + len(orgs) + sampled
        assert len(source.asked) <= questions


def test_a_session_that_is_left_out_costs_the_one_cell_in_which_it_is_missing() -> None:
    source = Source({(f"org-{n}", day): n + day for n in range(4) for day in range(5)}, 5)
    listed = true_list(source)
    listed[2]["org-1"] -= 1
    answers, verdicts = from_list(source, orgs := [f"org-{n}" for n in range(4)], listed)
    assert verdicts == [ListVerdict.PROVEN]
    assert [of_day.known_by("asked") for of_day in answers] == [set(), set(), {"org-1"}, set(), set()]
    assert answers[2].counts == {org_id: source.truth(org_id, 2) for org_id in orgs}


@pytest.mark.parametrize("lie", [moves, swaps])
def test_a_list_that_misplaces_sessions_is_told_apart_from_one_that_lacks_some(lie: Lie) -> None:
    source = Source({(f"org-{n}", day): 3 * n + day + 1 for n in range(4) for day in range(5)}, 5)
    listed = true_list(source)
    lie(listed, random.Random(5))
    answers, verdicts = from_list(source, [f"org-{n}" for n in range(4)], listed)
    assert verdicts == [ListVerdict.MISPLACES]
    assert not any(of_day.known_by("listed") for of_day in answers)


def test_moves_that_cancel_out_are_found_by_totals_of_random_organizations_and_days() -> None:
    source = Source({(f"org-{n}", day): 5 for n in range(2) for day in range(2)}, 2)
    listed = true_list(source)
    for day, org_id, change in ((0, "org-0", 1), (0, "org-1", -1), (1, "org-0", -1), (1, "org-1", 1)):
        listed[day][org_id] += change
    for sampled, verdict in ((0, ListVerdict.PROVEN), (10, ListVerdict.MISPLACES)):
        assert from_list(source, ["org-0", "org-1"], listed, sampled=sampled)[1] == [verdict]


def test_sessions_of_ids_that_nobody_asks_about_are_named() -> None:
    source = Source({("org-0", 0): 2, ("hidden", 0): 3, ("hidden", 1): 1}, 3)
    answers, _ = from_list(source, ["org-0"], true_list(source))
    assert [of_day.others for of_day in answers] == [{"hidden": 3}, {"hidden": 1}, {}]
    assert [of_day.rest for of_day in answers] == [3, 1, 0]


def test_an_organization_that_the_api_refuses_costs_no_doubt_in_the_others() -> None:
    def refuses(org_ids: Sequence[str], days: int) -> Exception | None:
        return PermissionError("unknown") if "org-1" in org_ids else None

    source = Source({("org-0", 0): 2, ("org-2", 2): 1}, 3, refuses=refuses)
    answers, verdicts = from_list(source, ["org-0", "org-1", "org-2"], true_list(source))
    assert verdicts == [ListVerdict.PROVEN]
    assert [of_day.counts for of_day in answers] == [
        {"org-0": 2, "org-2": 0},
        {"org-0": 0, "org-2": 0},
        {"org-0": 0, "org-2": 1},
    ]
    assert all("org-1" in of_day.refused for of_day in answers)


def test_without_a_list_the_block_is_asked_as_differenced() -> None:
    source = Source({("org-0", 0): 2}, 3)
    answers, verdicts = from_list(source, ["org-0"], None)
    assert verdicts == []
    assert [of_day.counts for of_day in answers] == [{"org-0": 2}, {"org-0": 0}, {"org-0": 0}]


def test_windows_have_about_as_many_sessions_as_wanted() -> None:
    totals = [100, 150, 900, 0, 0, 300]
    assert windows_of(totals, 250) == [(0, 2), (2, 3), (3, 5), (5, 6)]
    assert windows_of(totals, 10_000) == [(0, 6)]
