"""Rows that are staged for a merge: what is read from the stage is what was written, whatever it is."""

from datetime import UTC, date, datetime, timedelta, timezone

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.support.examples import examples
from warehouse.staging import staged

TABLE = sa.Table(
    "Any \"kind's",
    sa.MetaData(),
    sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("large", sa.BigInteger),
    sa.Column("day", sa.Date),
    sa.Column("at", sa.DateTime(timezone=True)),
    sa.Column("is_it", sa.Boolean),
    sa.Column('a "text', sa.Text),
)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
FIRST, LAST = map(datetime.fromisoformat, ("0001-01-03", "9999-12-29"))  # of a year from 1 to 9999 in every zone
MOMENTS = st.datetimes(FIRST, LAST, timezones=st.just(UTC) | ZONES)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.dates(),
    st.none() | MOMENTS,
    st.none() | st.booleans(),
    st.none() | TEXTS,
)


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the stage is dropped each time
@given(rows=st.lists(VALUES, max_size=8))
def test_every_value_is_staged_as_it_is(
    connection: sa.Connection, rows: list[tuple[int | None, date | None, datetime | None, bool | None, str | None]]
) -> None:
    names = TABLE.columns.keys()
    numbered = [dict(zip(names, (n, *values), strict=True)) for n, values in enumerate(rows)]
    with staged(connection, TABLE, numbered) as stage:
        found = connection.execute(sa.select(*(stage.c[name] for name in names)).order_by(stage.c.n)).all()
    assert [tuple(row) for row in found] == [(n, *values) for n, values in enumerate(rows)]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_a_number_that_its_column_cannot_hold_is_refused(connection: sa.Connection, value: int) -> None:
    row = dict.fromkeys(TABLE.columns.keys()) | {"n": 1, "large": value}
    with pytest.raises((sa.exc.DBAPIError, psycopg.Error)), staged(connection, TABLE, [row]):
        pass
