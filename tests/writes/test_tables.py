"""The layout of the warehouse, and its description in the databases."""

import sqlalchemy as sa

from tests.support.rows import DAY, reading, store
from tests.support.warehouse import comments, everything
from warehouse import tables
from warehouse.pace_table import api_pace


def test_every_table_view_and_column_is_described_in_the_database(connection: sa.Connection) -> None:
    expected: dict[tuple[str, str | None], str | None] = {}
    on_postgresql = [api_pace] if connection.dialect.name == "postgresql" else []
    for relation in (*tables.metadata.sorted_tables, *tables.views.sorted_tables, *on_postgresql):
        expected[relation.name, None] = relation.comment
        expected |= {(relation.name, column.name): column.comment for column in relation.columns}
    assert all(expected.values())
    assert comments(connection) == expected


def test_creating_the_tables_again_changes_nothing(connection: sa.Connection) -> None:
    store(connection, reading(DAY, 1, {"a": 1}))
    before = everything(connection)
    tables.create(connection)
    assert everything(connection) == before
