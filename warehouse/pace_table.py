"""The table in which processes with one key share how fast they ask the API. It holds nothing about sessions.

It is on PostgreSQL alone, and apart from the other tables: what asks the API may come before a warehouse is there or
an older one is migrated, and nothing is lost with it.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from warehouse import tables


def _at(name: str, comment: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=False, server_default="-Infinity", comment=comment)


api_pace = sa.Table(
    "api_pace",
    sa.MetaData(),
    sa.Column("id", sa.Text(), primary_key=True, comment="A hash of the key and of the API's address."),
    sa.Column("revision", sa.BigInteger(), nullable=False, server_default="0", comment="Counts the rate's changes."),
    sa.Column(
        "per_second", sa.Double(), nullable=False, server_default="Infinity", comment="Requests a second, as learned."
    ),
    sa.Column(
        "is_guess", sa.Boolean(), nullable=False, server_default=sa.false(), comment="True if little was learned yet."
    ),
    _at("since", "When the pause ended that followed the last refusal."),
    _at("paused_until", "No request is sent before."),
    _at("refused_at", "When the request was sent whose refusal began the last pause."),
    _at("next_turn", "The first turn that no process has leased."),
    sa.Column(
        "answered",
        JSONB(),
        nullable=False,
        server_default="{}",
        comment="Answered requests by the 25th of a second in which they were sent.",
    ),
    comment="One row per API key: how fast it is used by all processes. Times are seconds since 1970.",
    prefixes=["unlogged"],  # so that no lease waits for the disk; a crash of the server forgets it
)


def create_missing(connection: sa.Connection) -> None:
    """Create the table, with its comments, if there is none."""
    if api_pace.name not in tables.present(connection):
        connection.execute(sa.schema.CreateTable(api_pace))
        tables.describe(connection, [api_pace])
