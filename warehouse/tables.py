"""Every table: columns, types, keys, checks and comments. The schema's one source; how rows get in is in `writes`.

The comments are what the databases, the Dagster catalogue and the documentation show.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Date, DateTime, Double, Integer, Text

metadata = sa.MetaData()


def _column(
    name: str, type_: sa.types.TypeEngine[Any], comment: str, *, nullable: bool = False, primary_key: bool = False
) -> sa.Column[Any]:
    return sa.Column(name, type_, comment=comment, nullable=nullable, primary_key=primary_key, autoincrement=False)


def _count(name: str, comment: str, *, nullable: bool = False) -> sa.Column[Any]:
    return _column(name, BigInteger(), comment, nullable=nullable)


def _at(name: str, comment: str, *, nullable: bool = False) -> sa.Column[Any]:
    return _column(name, DateTime(timezone=True), comment, nullable=nullable)


def _never_negative(column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} >= 0")


def _listed(name: str, noun: str, *more: sa.Column[Any]) -> sa.Table:
    id_ = _id(noun)
    return sa.Table(
        name,
        metadata,
        _column(id_, Text(), f"The source's id of the {noun}.", primary_key=True),
        *more,
        _at("created_at", "When it was created, as the source says; NULL if it does not say.", nullable=True),
        _at("first_seen_at", "When it was first listed by the source, or configured."),
        _at(
            "last_seen_at",
            "When it was last listed by the source, or configured. Those of the latest time are counted.",
        ),
        _at("unavailable_since", "When the source first refused to count it; NULL while it answers.", nullable=True),
        _column(
            "unavailable_reason", Text(), "What the source said when it refused; NULL while it answers.", nullable=True
        ),
        comment=f"One row per {noun}.",
    )


def _cells(name: str, noun: str, totals: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column("day", Date(), f"The day; its exact window is in {totals}.", primary_key=True),
        _column(_id(noun), Text(), f"The {noun}.", primary_key=True),
        _count(
            "sessions_count", f"Sessions created on that day {'in' if noun == 'organization' else 'by'} that {noun}."
        ),
        _column("is_derived", Boolean(), "True if the count follows from other answers; false if it was asked itself."),
        _column("api_version", Text(), "The version of the API that answered."),
        _at("loaded_at", "When this count was stored: first, or when it last changed."),
        _column("run_id", Text(), "The Dagster run that stored this count."),
        _never_negative("sessions_count"),
        comment=f"One row per {noun} and day.",
    )


def _totals(name: str, noun: str, prefix: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column("day", Date(), "The day.", primary_key=True),
        _at("window_start", "First instant of the day."),
        _at("window_end", "First instant after the day."),
        _count("sessions_count", f"Control total: the source's own count for the day, with no {noun} filter."),
        _count(f"{prefix}_sessions_count", f"Sum of the day's counts per {noun}."),
        _count(
            "unattributed_count",
            f"Control total minus the sum of the {noun}s: sessions of {noun}s that were not counted. "
            "Negative if the source contradicted itself.",
        ),
        _column(f"{prefix}_expected", Integer(), f"How many {noun}s were to be counted."),
        _column(f"{prefix}_loaded", Integer(), "How many of them the source counted."),
        _column("api_version", Text(), "The version of the API that answered."),
        _at("loaded_at", "When the day was last read."),
        _column("run_id", Text(), "The Dagster run that last read the day."),
        _never_negative("sessions_count"),
        _never_negative(f"{prefix}_sessions_count"),
        comment=f"One row per day that was read whole per {noun}: the control totals, and the ledger of loading.",
    )


def _id(noun: str) -> str:
    return {"organization": "org_id", "user": "user_id"}[noun]


_org_name = _column("org_name", Text(), "Its name when last listed; NULL if the source never named it.", nullable=True)

organizations = _listed("organizations", "organization", _org_name)
daily_sessions = _cells("daily_sessions", "organization", "daily_totals")
daily_totals = _totals("daily_totals", "organization", "orgs")

users = _listed("users", "user")
user_daily_sessions = _cells("user_daily_sessions", "user", "user_daily_totals")
user_daily_totals = _totals("user_daily_totals", "user", "users")


@dataclass(frozen=True)
class Counted:
    """Whose sessions are counted per day, and the tables about them: the same columns but for `id` and a prefix."""

    noun: str
    prefix: str
    listed: sa.Table
    cells: sa.Table
    totals: sa.Table

    @property
    def id(self) -> str:
        """The name of the column that identifies one of them."""
        return _id(self.noun)


ORGANIZATIONS = Counted("organization", "orgs", organizations, daily_sessions, daily_totals)
USERS = Counted("user", "users", users, user_daily_sessions, user_daily_totals)


def _rollup(name: str, period: str, first_day: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column(period, Date(), f"First day of the {period}{first_day}.", primary_key=True),
        _column("org_id", Text(), "The organization.", primary_key=True),
        _count("sessions_count", f"Sessions created in the {period}, over the days that are loaded."),
        _column("days_expected", Integer(), f"Days of the {period}."),
        _column("days_loaded", Integer(), f"Days of the {period} for which this organization is loaded."),
        _column("is_complete", Boolean(), f"True if every day of the {period} is loaded."),
        _never_negative("sessions_count"),
        comment=f"One row per organization and {'ISO week' if period == 'week' else period}.",
    )


weekly_sessions = _rollup("weekly_sessions", "week", ", a Monday")
monthly_sessions = _rollup("monthly_sessions", "month", "")

enterprise_sessions = sa.Table(
    "enterprise_sessions",
    metadata,
    _column("day", Date(), "The day.", primary_key=True),
    _count("sessions_count", "Sessions created on that day in the whole enterprise (the control total)."),
    _count("active_orgs", "Organizations with at least one session."),
    _count("trailing_7_day_count", "Sum of 7 days up to this one; NULL unless all are loaded.", nullable=True),
    _count("trailing_28_day_count", "Sum of 28 days up to this one; NULL unless all are loaded.", nullable=True),
    _count("previous_week_count", "trailing_7_day_count of seven days before; NULL if unknown.", nullable=True),
    _column(
        "week_over_week_change",
        Double(),
        "trailing_7_day_count / previous_week_count - 1: 0.1 is 10 % more. NULL if one is unknown or the latter is 0.",
        nullable=True,
    ),
    _count(
        "month_to_date_count", "Sum since the month's first day; NULL unless all its days are loaded.", nullable=True
    ),
    _column(
        "is_settled",
        Boolean(),
        "True if the day was last read after its last scheduled look-back: it is expected to stay.",
    ),
    _never_negative("sessions_count"),
    comment="One row per day that is loaded, over the whole enterprise.",
)


def create(connection: sa.Connection) -> None:
    """Make every table that is not there yet, with its comments. Costs one look if all are there."""
    present = set(connection.scalars(sa.text("select table_name from information_schema.tables")))
    for table in metadata.sorted_tables:
        if table.name in present:
            continue
        connection.execute(sa.schema.CreateTable(table))
        connection.execute(sa.schema.SetTableComment(table))
        for column in table.columns:
            connection.execute(sa.schema.SetColumnComment(column))


def are_present(connection: sa.Connection) -> bool:
    """Whether anything was ever stored here."""
    tables = connection.scalars(sa.text("select table_name from information_schema.tables"))
    return daily_totals.name in set(tables)
