"""The words for days on the command line."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.command.days_meant import days_meant, refuse_contradictions, refuse_other_words
from pipelines.command.exit_codes import WrongUse
from pipelines.partitions import format_days

START, LAST = date(2025, 1, 15), date(2026, 2, 10)
CLOSED = [START + timedelta(days=n) for n in range((LAST - START).days + 1)]


def ends(*words: str) -> tuple[str, str]:
    """The first and the last day that the words mean; the days between are consecutive."""
    days = days_meant(words, CLOSED, START)
    assert days == [days[0] + timedelta(days=n) for n in range(len(days))]
    return f"{days[0]}", f"{days[-1]}"


@pytest.mark.parametrize(
    ("words", "first", "last"),
    [
        (["2025-03-01"], "2025-03-01", "2025-03-01"),
        (["2025-03-01", "2025-03-09"], "2025-03-01", "2025-03-09"),
        (["20250301"], "2025-03-01", "2025-03-01"),
        (["yesterday"], "2026-02-10", "2026-02-10"),
        (["-7d"], "2026-02-04", "2026-02-10"),
        (["7d"], "2026-02-04", "2026-02-10"),
        (["-2w"], "2026-01-28", "2026-02-10"),
        (["-99999d"], "2025-01-15", "2026-02-10"),
        (["2025-02"], "2025-02-01", "2025-02-28"),
        (["2025-12"], "2025-12-01", "2025-12-31"),
        (["2025-W09"], "2025-02-24", "2025-03-02"),
        (["2025W09"], "2025-02-24", "2025-03-02"),
        (["2025"], "2025-01-15", "2025-12-31"),
        (["2025-01"], "2025-01-15", "2025-01-31"),
        (["2026-02"], "2026-02-01", "2026-02-10"),
        (["2025-11", "2026-01"], "2025-11-01", "2026-01-31"),
        (["2025-11", "yesterday"], "2025-11-01", "2026-02-10"),
        (["-14d", "yesterday"], "2026-01-28", "2026-02-10"),
        (["2025-03-01…2025-03-09"], "2025-03-01", "2025-03-09"),
        (["2025-03..2025-04-02"], "2025-03-01", "2025-04-02"),
    ],
)
def test_words_for_days_mean_what_people_mean(words: list[str], first: str, last: str) -> None:
    assert ends(*words) == (first, last)


@pytest.mark.parametrize(
    "word",
    [
        "tomorrow",
        "2025-13",
        "2025-00",
        "2025-02-30",
        "0000",
        "9999-99-99",
        "-0d",
        "-7m",
        "7",
        "--7d",
        "",
        "…2025",
        "\u0662\u0660\u0662\u0665",
    ],
)
def test_other_words_are_refused_with_the_forms_that_are_understood(word: str) -> None:
    with pytest.raises(WrongUse, match=r"is not a day\. Give a day such as 2025-01-31 or yesterday"):
        refuse_other_words([word])
    with pytest.raises(WrongUse, match=r"is not a day\."):
        days_meant([word], CLOSED, START)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["today"], "today is not over yet. The last closed day is 2026-02-10."),
        (["2026-02-11"], "2026-02-11 is not over yet."),
        (["2026-03"], "2026-03 is not over yet."),
        (["2025-03-01", "2026-02-11"], "2026-02-11 is not over yet."),
        (["2025-01-14"], "2025-01-14 is before DEVIN_START_DATE=2025-01-15."),
        (["2024-12"], "2024-12 is before DEVIN_START_DATE=2025-01-15."),
        (["-7d", "-3d"], '"-3d" means the last days up to 2026-02-10, so no range ends with it.'),
        (["2025-03-02", "2025-03-01"], "The range is reversed: 2025-03-02 is after 2025-03-01."),
        (["2025-04", "2025-03"], "The range is reversed: 2025-04 is after 2025-03."),
    ],
)
def test_days_that_cannot_be_loaded_are_refused_with_a_reason(words: list[str], sentence: str) -> None:
    with pytest.raises(WrongUse) as refused:
        days_meant(words, CLOSED, START)
    assert sentence in str(refused.value)


def test_without_any_closed_day_nothing_is_meant() -> None:
    with pytest.raises(WrongUse, match="No day is closed yet"):
        days_meant(["yesterday"], [], START)


@given(st.integers(0, len(CLOSED) - 1), st.integers(0, len(CLOSED) - 1))
def test_a_range_that_a_message_shows_can_be_typed_as_it_is(one: int, other: int) -> None:
    days = CLOSED[min(one, other) : max(one, other) + 1]
    shown = format_days(days).split(" ")[0]
    assert days_meant([shown], CLOSED, START) == days


BOTH = ["2025-03", "2025-04"]


@pytest.mark.parametrize(
    ("words", "flags", "which", "instead"),
    [
        (["-7d"], "missing", "--missing and -7d contradict", "backfill -7d or devin-sessions backfill --missing."),
        (BOTH, "missing refresh", "--missing and 2025-03 2025-04 contradict", "backfill 2025-03 2025-04 --refresh or"),
        ([], "missing refresh", "--missing and --refresh contradict", "devin-sessions backfill FIRST LAST --refresh."),
        ([], "refresh", "--refresh needs the days", "devin-sessions backfill -7d --refresh."),
        ([], "", "Give the days", "or use --missing"),
    ],
)
def test_contradicting_arguments_are_named_with_what_to_type(
    words: list[str], flags: str, which: str, instead: str
) -> None:
    with pytest.raises(WrongUse) as refused:
        refuse_contradictions(words, missing="missing" in flags, refresh="refresh" in flags)
    assert which in str(refused.value)
    assert instead in str(refused.value)


@pytest.mark.parametrize(("words", "flags"), [(["-7d"], ""), (BOTH, "refresh"), ([], "missing")])
def test_arguments_that_agree_are_accepted(words: list[str], flags: str) -> None:
    refuse_contradictions(words, missing="missing" in flags, refresh="refresh" in flags)
