"""Whose unattributed sessions are: names are stored only while they add up to what is unattributed on their day."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import pytest
import sqlalchemy as sa

from tests.support.rows import DAY, LATER, NOW, reading, store
from tests.support.warehouse import rows_of
from warehouse import unattributed, writes
from warehouse.dimensions import DIMENSIONS, ORGANIZATIONS, USERS, Dimension
from warehouse.unattributed import Others, Owner
from warehouse.writes import Entry

NEXT = DAY + timedelta(days=1)


def named(connection: sa.Connection, of: Dimension = ORGANIZATIONS) -> dict[tuple[date, str], int]:
    return {(row[0], row[1]): row[2] for row in rows_of(connection, of.unattributed)}


def listed(day: date, total: int, counts: Mapping[str, int], others: Mapping[str | None, int]) -> writes.Reading:
    return replace(reading(day, total, counts), others=Others(others))


@pytest.mark.parametrize("of", DIMENSIONS, ids=lambda of: of.plural)
def test_sessions_that_nobody_counted_are_stored_with_their_ids_and_without_any(
    connection: sa.Connection, of: Dimension
) -> None:
    store(connection, listed(DAY, 9, {"a": 2}, {"x": 4, None: 3, "y": 0}), reading(NEXT, 5, {"a": 5}), of=of)
    assert named(connection, of) == {(DAY, "x"): 4, (DAY, ""): 3}
    assert {tuple(row[3:5]) for row in rows_of(connection, of.unattributed)} == {(NOW, f"run of {NOW}")}


def test_a_day_that_is_read_again_replaces_its_names_by_those_of_the_list(connection: sa.Connection) -> None:
    store(connection, listed(DAY, 5, {"a": 2}, {"x": 1, "y": 2}), listed(NEXT, 3, {"a": 1}, {"x": 2}))
    store(connection, listed(DAY, 8, {"a": 2}, {"y": 2, "z": 4}), at=LATER)
    assert named(connection) == {(DAY, "y"): 2, (DAY, "z"): 4, (NEXT, "x"): 2}
    store(connection, listed(DAY, 2, {"a": 2}, {}), at=LATER)
    assert named(connection) == {(NEXT, "x"): 2}


def test_a_reading_without_the_list_keeps_names_that_still_add_up_and_no_others(connection: sa.Connection) -> None:
    store(connection, listed(DAY, 5, {"a": 2}, {"x": 3}), listed(NEXT, 3, {"a": 1}, {"x": 2}))
    store(connection, reading(DAY, 6, {"a": 3}), reading(NEXT, 4, {"a": 1}), at=LATER)
    assert named(connection) == {(DAY, "x"): 3}


def test_who_has_a_count_by_now_is_not_named(connection: sa.Connection) -> None:
    store(connection, listed(DAY, 5, {"a": 2}, {"x": 3}))
    store(connection, reading(DAY, 8, {"a": 2, "x": 3}), at=LATER)
    assert named(connection) == {}, "although as many sessions are unattributed"
    store(connection, listed(DAY, 8, {"a": 2}, {"x": 3, "z": 3}), at=LATER)
    assert named(connection) == {(DAY, "z"): 3}, "x was counted earlier"


@pytest.mark.parametrize("others", [{"x": 2}, {"x": 4}, {"x": 3, None: 1}], ids=str)
def test_names_that_do_not_add_up_to_what_is_unattributed_are_not_stored(
    connection: sa.Connection, others: dict[str | None, int]
) -> None:
    store(connection, listed(DAY, 5, {"a": 2}, others))
    assert named(connection) == {}
    store(connection, listed(DAY, 5, {"a": 2}, {"z": 3}))
    store(connection, listed(DAY, 5, {"a": 2}, others), at=LATER)
    assert named(connection) == {(DAY, "z"): 3}, "and replace none that do"


def test_names_go_with_a_day_that_is_forgotten_or_whose_window_has_moved(connection: sa.Connection) -> None:
    store(connection, listed(DAY, 5, {"a": 2}, {"x": 3}), listed(NEXT, 3, {"a": 1}, {"x": 2}))
    moved = reading(DAY, 5, {"a": 2})
    store(connection, replace(moved, window_start=moved.window_start + timedelta(hours=1)), at=LATER)
    assert named(connection) == {(NEXT, "x"): 2}
    writes.forget_days(connection, ORGANIZATIONS, [NEXT])
    assert named(connection) == {}


def test_a_restore_from_several_files_keeps_only_names_that_belong_to_their_day(connection: sa.Connection) -> None:
    store(connection, listed(DAY, 5, {"a": 2}, {"x": 3}), listed(NEXT, 3, {"a": 1}, {"x": 2}))
    totals = ORGANIZATIONS.totals
    connection.execute(sa.update(totals).where(totals.c.day == DAY).values(unattributed_count=4))
    unattributed.drop_outdated(connection, ORGANIZATIONS)
    assert named(connection) == {(NEXT, "x"): 2}
    connection.execute(sa.delete(totals))
    unattributed.drop_outdated(connection, ORGANIZATIONS)
    assert named(connection) == {}


def test_owners_are_summed_over_days_and_known_from_the_list(connection: sa.Connection) -> None:
    writes.store_listed(connection, ORGANIZATIONS, [Entry("a"), Entry("refused")], NOW)
    store(connection, listed(DAY, 9, {"a": 1}, {"x": 3, None: 5}), listed(NEXT, 5, {"a": 1}, {"x": 3, "refused": 1}))
    assert unattributed.owners(connection, ORGANIZATIONS, DAY) == [
        Owner("x", 6, 2, DAY, NEXT, is_listed=False, is_known=False, is_service_user=None),
        Owner("", 5, 1, DAY, DAY, is_listed=False, is_known=False, is_service_user=None),
        Owner("refused", 1, 1, NEXT, NEXT, is_listed=True, is_known=True, is_service_user=None),
    ]
    assert [owner.id for owner in unattributed.owners(connection, ORGANIZATIONS, NEXT)] == ["x", "refused"]


def test_what_the_api_says_of_service_users_is_stored_and_otherwise_it_depends_on_the_lists(
    connection: sa.Connection,
) -> None:
    writes.store_listed(connection, USERS, [Entry("former"), Entry("a")], NOW)
    writes.store_listed(connection, USERS, [Entry("a")], LATER)
    sessions = {"service": 3, "human": 2, "former": 1, None: 4}
    store(connection, replace(reading(DAY, 11, {"a": 1}), others=Others(sessions, {"service"})), of=USERS)

    def found() -> dict[str, tuple[bool | None, bool, bool]]:
        owners = unattributed.owners(connection, USERS, DAY)
        return {o.id: (o.is_service_user, o.may_be_service_user, o.is_nobodys) for o in owners}

    assert found() == {
        "": (None, False, True),
        "service": (True, True, False),
        "human": (False, False, False),
        "former": (False, False, False),
    }
    store(connection, replace(reading(DAY, 11, {"a": 1}), others=Others(sessions)), of=USERS, at=LATER)
    assert found() == {
        "": (None, False, True),
        "service": (None, True, False),
        "human": (None, True, False),
        "former": (None, False, False),
    }, "no list of users ever had the first two"
