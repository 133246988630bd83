"""Tables and the calendar on a terminal: whatever its width, no line breaks a date or a number."""

import gc
import io
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipelines.command import interrupts, screen, status_screen
from tests.support.examples import examples
from warehouse.reads import DayState

DATES = st.dates().map(str)
INSTANTS = st.datetimes().map(lambda instant: f"{instant:%Y-%m-%d %H:%M:%S}+00")
NUMBERS = st.integers(-(10**15), 10**15)
WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=8), max_size=9).map(" ".join)
VALUES = (DATES, INSTANTS, NUMBERS, WORDS)
COLUMNS = st.lists(st.sampled_from(VALUES), min_size=1, max_size=6)
TABLES = COLUMNS.flatmap(lambda of: st.lists(st.tuples(*(values | st.none() for values in of)), min_size=1, max_size=3))


def lines_on(width: int, patch: pytest.MonkeyPatch, *table: Any) -> list[str]:
    """The lines that a terminal of this width shows of a table."""
    file = io.StringIO()
    patch.setattr(screen, "out", Console(file=file, width=width, force_terminal=True, color_system=None))
    screen.show_table(*table)
    return file.getvalue().splitlines()


@examples(80)
@given(TABLES, st.integers(27, 120))
def test_no_date_or_number_is_broken_and_no_line_is_too_long_on_any_terminal(
    rows: list[tuple[Any, ...]], width: int
) -> None:
    columns = [f"a_name_{n}" for n in range(len(rows[0]))]
    with pytest.MonkeyPatch.context() as patch:
        lines = lines_on(width, patch, "", columns, rows)
    assert max(map(len, lines)) <= width
    for value in (value for row in rows for value in row if value is not None):
        shown = f"{value:,}" if isinstance(value, int) else value
        for whole in shown.split() if shown[:1].isalpha() else [shown]:
            assert any(whole in line for line in lines), (whole, lines)


def test_texts_wrap_where_that_is_enough_and_otherwise_each_value_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    columns: Sequence[str] = ("started", "what", "took")
    rows: Iterable[Sequence[Any]] = [("2025-11-28 02:30 UTC", "three words here", None)]
    assert (
        lines_on(60, monkeypatch, "Last runs", columns, rows)[4] == "│ 2025-11-28 02:30 UTC │ three words here │ NULL │"
    )
    assert [line.strip() for line in lines_on(36, monkeypatch, "Last runs", columns, rows)[4:7]] == [
        "2025-11-28 02:30 UTC  three   NULL",
        "words",
        "here",
    ]
    assert lines_on(28, monkeypatch, "Last runs", columns, rows) == [
        "Last runs",
        "row 1",
        "started",
        "2025-11-28 02:30 UTC",
        "what     three words here",
        "took     NULL",
    ]


@pytest.mark.parametrize(("width", "first"), [(42, "  2025-01  " + "■" * 31), (39, "2025-01 " + "■" * 31), (38, "")])
def test_the_calendar_fits_the_terminal_or_is_left_out(width: int, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(status_screen, "out", Console(file=file, width=width, force_terminal=True, color_system=None))
    days: dict[date, DayState] = {date(2025, 1, 1) + timedelta(n): "proven" for n in range(31)}
    status_screen.show_calendar(days)
    assert file.getvalue() == (f"{first}\n" if first else "") + "  ■ loaded and proven (31)\n"


def test_what_is_imported_with_dagster_is_not_searched_for_garbage() -> None:
    frozen = gc.get_freeze_count()
    try:
        with screen.starting_dagster():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
        interrupts.set_last_words(str)
