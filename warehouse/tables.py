"""Every table and view: columns, types, keys, checks and comments. The schema's one source; see `writes` for the rows.

The comments are what the databases, the Dagster catalogue and the documentation show. What a view or a rollup selects
is in `sql/`, under its name.
"""

from dataclasses import dataclass
from importlib import resources
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Date, DateTime, Double, Integer, Text

metadata = sa.MetaData()
views = sa.MetaData()

LARGEST_COUNT = 10**12
"""More sessions than any source has in one count; sums of counts up to here fit a bigint."""


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
        _at("last_seen_at", "When it was last listed by the source, or configured."),
        _at("unavailable_since", "When the source first refused to count it; NULL while it answers.", nullable=True),
        _column(
            "unavailable_reason", Text(), "What the source said when it refused; NULL while it answers.", nullable=True
        ),
        # Nullable because DuckDB cannot add any other column to a table with rows; it never is.
        _column("is_listed", Boolean(), "True if the newest listing named it: only then is it counted.", nullable=True),
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
        _at("loaded_at", "When this count was stored: first, or when it or api_version last changed."),
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


def _revisions(name: str, noun: str, cells: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column("day", Date(), "The day."),
        _column(_id(noun), Text(), f"The {noun}."),
        _at("revised_at", "When the new count was stored."),
        _count("previous_count", f"What {cells} held until then."),
        _count("new_count", f"What {cells} held from then on."),
        _column("run_id", Text(), "The Dagster run that read the new count."),
        comment=f"One row per {noun}, day and change of a count that was stored already. Rows are only ever added.",
    )


def _contradictions(name: str, noun: str, cells: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column("day", Date(), "The day."),
        _column(_id(noun), Text(), f"The {noun} that was asked about; NULL: no {noun} filter.", nullable=True),
        _column("first_day", Date(), "First of the days that the source was asked about in one question."),
        _column("last_day", Date(), "Last of these days."),
        _count("block_sessions_count", "What the source counts over these days in one question."),
        _count("stored_sessions_count", f"What it counts day by day, as {cells} and the control totals hold it."),
        _at("read_at", "When both were read, for the second time."),
        _column("run_id", Text(), "The Dagster run that read both."),
        comment="One row per day and contradiction: days that do not sum to the source's own count of all of them. "
        "Each reading of a day replaces the rows of that day.",
    )


def _id(noun: str) -> str:
    return {"organization": "org_id", "user": "user_id"}[noun]


_org_name = _column("org_name", Text(), "Its name when last listed; NULL if the source never named it.", nullable=True)

organizations = _listed("organizations", "organization", _org_name)
daily_sessions = _cells("daily_sessions", "organization", "daily_totals")
daily_totals = _totals("daily_totals", "organization", "orgs")
session_revisions = _revisions("session_revisions", "organization", "daily_sessions")
contradictions = _contradictions("contradictions", "organization", "daily_sessions")

users = _listed("users", "user")
user_daily_sessions = _cells("user_daily_sessions", "user", "user_daily_totals")
user_daily_totals = _totals("user_daily_totals", "user", "users")
user_session_revisions = _revisions("user_session_revisions", "user", "user_daily_sessions")
user_contradictions = _contradictions("user_contradictions", "user", "user_daily_sessions")


@dataclass(frozen=True)
class Counted:
    """Whose sessions are counted per day, and the tables about them: the same columns but for `id` and a prefix."""

    noun: str
    prefix: str
    listed: sa.Table
    cells: sa.Table
    totals: sa.Table
    revisions: sa.Table
    contradictions: sa.Table

    @property
    def id(self) -> str:
        """The name of the column that identifies one of them."""
        return _id(self.noun)


ORGANIZATIONS = Counted(
    "organization", "orgs", organizations, daily_sessions, daily_totals, session_revisions, contradictions
)
USERS = Counted(
    "user", "users", users, user_daily_sessions, user_daily_totals, user_session_revisions, user_contradictions
)


def _rollup(name: str, period: str, first_day: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column(period, Date(), f"First day of the {period}{first_day}.", primary_key=True),
        _column("org_id", Text(), "The organization.", primary_key=True),
        _count("sessions_count", f"Sessions created in the {period}, over the days that are loaded."),
        _column("days_expected", Integer(), f"Days of the {period}."),
        _column("days_loaded", Integer(), f"Days of the {period} for which this organization is loaded."),
        _column("is_complete", Boolean(), f"True if every day of the {period} is loaded for this organization."),
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


ROLLUPS = (weekly_sessions, monthly_sessions, enterprise_sessions)

stale_days = sa.Table(
    "stale_days",
    metadata,
    _column("rollup", Text(), "The rollup.", primary_key=True),
    _column("day", Date(), "A day that was loaded since the rollup was last built.", primary_key=True),
    comment="One row per rollup and day that it has yet to take in. Empty when all are up to date.",
)

history = sa.Table(
    "history",
    metadata,
    _column("first_day", Date(), "First day of history: DEVIN_START_DATE."),
    _column("last_day", Date(), "The last day that was over."),
    comment="One row: the days that were to be loaded when a load last began.",
)

warehouse_version = sa.Table(
    "warehouse_version",
    metadata,
    _column("version", Integer(), "The version of the tables and views, which `migrations` counts."),
    comment="One row: the layout of this warehouse.",
)

calendar = sa.Table(
    "calendar",
    views,
    _column("day", Date(), "The day."),
    _column("week", Date(), "Its ISO week: the Monday."),
    _column("iso_year", Integer(), "The year that its ISO week belongs to."),
    _column("iso_week", Integer(), "The number of its ISO week in that year, 1 to 53."),
    _column("month", Date(), "Its month: the first day."),
    _column("quarter", Date(), "Its quarter: the first day."),
    _column("weekday", Integer(), "1 for Monday to 7 for Sunday."),
    _column("weekday_name", Text(), "Monday to Sunday."),
    _column("is_weekend", Boolean(), "True on Saturday and Sunday."),
    comment="One row per day of history, loaded or not.",
)

session_grid = sa.Table(
    "session_grid",
    views,
    _column("day", Date(), "The day."),
    _column("org_id", Text(), "The organization."),
    _column("org_name", Text(), "Its name when last listed; NULL if the source never named it.", nullable=True),
    _count(
        "sessions_count",
        "Sessions created on that day in that organization. NULL: not loaded. 0: the source said 0.",
        nullable=True,
    ),
    comment="One row per organization and day of history, loaded or not.",
)

reconciliation = sa.Table(
    "reconciliation",
    views,
    _column("day", Date(), "The day."),
    _count("control_total", "The source's own count for the day; NULL if not loaded.", nullable=True),
    _count("orgs_sessions_count", "Sum of the day's counts per organization; NULL if not loaded.", nullable=True),
    _count("unattributed_count", "control_total minus orgs_sessions_count; NULL if not loaded.", nullable=True),
    _column(
        "orgs_expected", Integer(), "How many organizations were to be counted; NULL if not loaded.", nullable=True
    ),
    _column("orgs_loaded", Integer(), "How many of them the source counted; NULL if not loaded.", nullable=True),
    _at("loaded_at", "When the day was last read; NULL if never.", nullable=True),
    _column(
        "verdict",
        Text(),
        "not loaded; proven: the organizations sum to the control total; unattributed: the control total is larger; "
        "contradiction: it is smaller, or days that were read together do not sum to the source's own count of all.",
    ),
    _count(
        "block_difference",
        "What the source counts in one question over the days that were read together with this one, minus their "
        "control totals; NULL if they agree.",
        nullable=True,
    ),
    _column(
        "contradicted_orgs",
        Integer(),
        "How many organizations have days that do not sum to the source's own count of all; see contradictions.",
    ),
    comment="One row per day of history, loaded or not.",
)


def present(connection: sa.Connection) -> set[str]:
    """The names of the tables and views that are there, also of those that this role may not read."""
    names = "select table_name from information_schema.tables where table_schema = current_schema()"
    if connection.dialect.name == "postgresql":  # whose information_schema is silent about those
        names = """
            select relname from pg_class
            where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')
        """
    return set(connection.scalars(sa.text(names)))


def select(table: sa.Table) -> str:
    """The SELECT of a rollup or view: the text of its file, which is the same for every database."""
    return resources.files("warehouse").joinpath("sql", f"{table.name}.sql").read_text(encoding="utf-8")


def create(connection: sa.Connection) -> None:
    """Make every table that is not there yet and every view anew, with comments."""
    there = present(connection)
    for table in metadata.sorted_tables:
        if table.name not in there:
            connection.execute(sa.schema.CreateTable(table))
        connection.execute(sa.schema.SetTableComment(table))
    for name in ("calendar", "session_grid", "reconciliation"):  # the later select from the first
        view = views.tables[name]
        columns = (sa.column(c.name, c.type) for c in view.columns)
        connection.execute(sa.CreateView(sa.text(select(view)).columns(*columns), name, or_replace=True))
        comment = sa.DDL(
            "comment on view %(name)s is '%(comment)s'",
            context=dict(name=name, comment=str(view.comment).replace("'", "''")),
        )  # type: ignore[no-untyped-call]
        connection.execute(comment)
    for relation in (*metadata.sorted_tables, *views.sorted_tables):
        for column in relation.columns:
            connection.execute(sa.schema.SetColumnComment(column))
