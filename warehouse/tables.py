"""Every table and view, with its columns, types, keys, checks, comments and facts: the only definition of the schema.

The comments appear in the databases, in the Dagster catalogue and in the documentation. The `Facts` are for the rest of
the project. The query of a view or a rollup is in `sql/`, under its name; `writes` and `rollups` fill the tables.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Date, DateTime, Double, Integer, Text

from warehouse.periods import month_of, up_to_days_later, week_of

metadata = sa.MetaData()
views = sa.MetaData()

LARGEST_COUNT = 10**12
"""More sessions than any enterprise has in one count; sums of counts up to this size fit a bigint."""


@dataclass(frozen=True)
class Facts:
    """What the project needs to know about a table or view besides its columns; see `facts`.

    kind: a *table* is filled from the API, a *rollup* from other tables by its SQL file; a *view* runs its query when
        it is read; a *bookkeeping table* is for the project's own use.
    since: the version of the warehouse that introduced it; see `migrations.VERSION`.
    parquet: whether it is published as one Parquet file, as one per month, or not at all (None).
    key: the columns that identify a row of a view, which no database enforces. Tables have a primary key instead.
    reach: for a day, the first and the last day of the period of a rollup that the day contributes to.
    """

    kind: Literal["table", "rollup", "view", "bookkeeping table"]
    since: int
    parquet: Literal["whole", "monthly"] | None = None
    key: tuple[str, ...] = ()
    reach: Callable[[date], tuple[date, date]] = lambda day: (day, day)


def facts(relation: sa.Table) -> Facts:
    """The facts about one of the tables and views of this module."""
    found: Facts = relation.info["facts"]
    return found


def key(relation: sa.Table) -> tuple[str, ...]:
    """The names of the columns that identify a row, in order; empty if none do."""
    return facts(relation).key or tuple(column.name for column in relation.primary_key.columns)


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


@dataclass(frozen=True)
class _Words:
    """How the tables about organizations differ from those about users."""

    noun: str
    plural: str
    preposition: str
    id: str
    prefix: str
    since: int


_ORGANIZATION = _Words("organization", "organizations", "in", "org_id", "orgs", since=1)
_USER = _Words("user", "users", "by", "user_id", "users", since=2)


def _listed(name: str, of: _Words, *more: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column(of.id, Text(), f"The API's id of the {of.noun}.", primary_key=True),
        *more,
        _at("created_at", "When it was created, according to the API; NULL if the API does not say.", nullable=True),
        _at(
            "first_seen_at",
            "When it was first listed by the API, or configured; after a list that you chose, when that one began.",
        ),
        _at("last_seen_at", "When it was last listed by the API, or configured."),
        _at("unavailable_since", "When the API first refused to count it; NULL while it answers.", nullable=True),
        _column(
            "unavailable_reason", Text(), "The reason the API gave for refusing; NULL while it answers.", nullable=True
        ),
        # Never NULL, but nullable because DuckDB can't add any other kind of column to a table with rows.
        _column("is_listed", Boolean(), "True if it is on the latest list: only then is it counted.", nullable=True),
        _column(
            "is_chosen",
            Boolean(),
            "True if it was last on a list because a setting names it, false if the API listed it. NULL: not recorded.",
            nullable=True,
        ),
        comment=f"One row per {of.noun}.",
        info={"facts": Facts("table", of.since, parquet="whole")},
    )


def _cells(name: str, of: _Words, totals: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column("day", Date(), f"The day; its exact window is in {totals}.", primary_key=True),
        _column(of.id, Text(), f"The {of.noun}.", primary_key=True),
        _count("sessions_count", f"Sessions created on that day {of.preposition} that {of.noun}."),
        _column(
            "is_derived",
            Boolean(),
            "True if the count was inferred from other answers; false if it was asked for directly. how says which.",
        ),
        _column("api_version", Text(), "The version of the API that answered."),
        _at(
            "loaded_at",
            "When this count was stored: first, or when it, its api_version or the day's window last changed.",
        ),
        _column("run_id", Text(), "The Dagster run that stored this count."),
        # Never NULL, but nullable because DuckDB can't add any other kind of column to a table with rows.
        _column(
            "how",
            Text(),
            "How the count is known: asked (for directly), derived (from totals) or listed (from the list of sessions, "
            "and proven by totals).",
            nullable=True,
        ),
        _never_negative("sessions_count"),
        comment=f"One row per {of.noun} and day.",
        info={"facts": Facts("table", of.since, parquet="monthly")},
    )


def _totals(name: str, of: _Words) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column("day", Date(), "The day.", primary_key=True),
        _at("window_start", "First instant of the day."),
        _at("window_end", "First instant after the day."),
        _count("sessions_count", f"Control total: the API's own count for the day, with no {of.noun} filter."),
        _count(f"{of.prefix}_sessions_count", f"Sum of the day's counts per {of.noun}."),
        _count(
            "unattributed_count",
            f"Control total minus the sum of the {of.plural}: sessions of {of.plural} that were not counted. "
            "Negative if the API contradicted itself.",
        ),
        _column(f"{of.prefix}_expected", Integer(), f"How many {of.plural} were to be counted."),
        _column(f"{of.prefix}_loaded", Integer(), "How many of them the API counted."),
        _column("api_version", Text(), "The version of the API that answered."),
        _at("loaded_at", "When the day was last read."),
        _column("run_id", Text(), "The Dagster run that last read the day."),
        _never_negative("sessions_count"),
        _never_negative(f"{of.prefix}_sessions_count"),
        comment=f"One row per day that was read whole per {of.noun}: the control totals, and the ledger of loading.",
        info={"facts": Facts("table", of.since, parquet="whole")},
    )


def _revisions(name: str, of: _Words, cells: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column("day", Date(), "The day."),
        _column(of.id, Text(), f"The {of.noun}."),
        _at("revised_at", "When the new count was stored."),
        _count("previous_count", f"What {cells} held until then."),
        _count("new_count", f"What {cells} held from then on."),
        _column("run_id", Text(), "The Dagster run that read the new count."),
        comment=f"One row per {of.noun}, day and change of a stored count. Rows are only ever added.",
        info={"facts": Facts("table", since=2, parquet="whole")},
    )


def _contradictions(name: str, of: _Words, cells: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column("day", Date(), "The day."),
        _column(of.id, Text(), f"The {of.noun} that was asked about; NULL: no {of.noun} filter.", nullable=True),
        _column("first_day", Date(), "First of the days that the API was asked about in one question."),
        _column("last_day", Date(), "Last of these days."),
        _count("block_sessions_count", "The API's count over these days in one question."),
        _count("stored_sessions_count", f"Its count day by day, as {cells} and the control totals hold it."),
        _at("read_at", "When both were read, for the second time."),
        _column("run_id", Text(), "The Dagster run that read both."),
        comment="One row per day and contradiction: days that do not sum to the API's own count of all of them. "
        "Each reading of a day replaces the rows of that day.",
        info={"facts": Facts("table", since=4, parquet="whole")},
    )


def _unattributed(name: str, of: _Words, totals: str, *more: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _column("day", Date(), f"The day; its unattributed_count is in {totals}.", primary_key=True),
        _column(
            of.id,
            Text(),
            f"The {of.noun}, as the API's list of sessions has it. Empty: sessions that have no {of.noun} there.",
            primary_key=True,
        ),
        _count("sessions_count", f"Sessions of that day {of.preposition} that {of.noun}, as the list has them."),
        _at("loaded_at", "When the list was read."),
        _column("run_id", Text(), "The Dagster run that read the list."),
        *more,
        _never_negative("sessions_count"),
        comment=f"One row per day and {of.noun} that is in the list of sessions but has no count. The rows of a day "
        "add up to its unattributed_count; a day without rows has none, or was not read from the list.",
        info={"facts": Facts("table", since=10, parquet="whole")},
    )


_org_name = _column("org_name", Text(), "Its name when last listed; NULL if the API never gave one.", nullable=True)

organizations = _listed("organizations", _ORGANIZATION, _org_name)
daily_sessions = _cells("daily_sessions", _ORGANIZATION, "daily_totals")
daily_totals = _totals("daily_totals", _ORGANIZATION)
session_revisions = _revisions("session_revisions", _ORGANIZATION, "daily_sessions")
contradictions = _contradictions("contradictions", _ORGANIZATION, "daily_sessions")
unattributed_sessions = _unattributed("unattributed_sessions", _ORGANIZATION, "daily_totals")

users = _listed("users", _USER)
user_daily_sessions = _cells("user_daily_sessions", _USER, "user_daily_totals")
user_daily_totals = _totals("user_daily_totals", _USER)
user_session_revisions = _revisions("user_session_revisions", _USER, "user_daily_sessions")
user_contradictions = _contradictions("user_contradictions", _USER, "user_daily_sessions")
user_unattributed_sessions = _unattributed(
    "user_unattributed_sessions",
    _USER,
    "user_daily_totals",
    _column(
        "is_service_user",
        Boolean(),
        "True if the list says that it is a service user. NULL: v2 of the API, which doesn't say, or no user.",
        nullable=True,
    ),
)


def _rollup(name: str, period: str, grain: str, first_day: str, reach: Callable[[date], tuple[date, date]]) -> sa.Table:
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
        comment=f"One row per organization and {grain}.",
        info={"facts": Facts("rollup", since=1, parquet="whole", reach=reach)},
    )


weekly_sessions = _rollup("weekly_sessions", "week", "ISO week", ", a Monday", week_of)
monthly_sessions = _rollup("monthly_sessions", "month", "month", "", month_of)

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
    # A day counts towards the month to date for up to 30 days after it, the 28 days for 27, the previous week for 13.
    info={"facts": Facts("rollup", since=1, parquet="whole", reach=up_to_days_later(31))},
)

stale_days = sa.Table(
    "stale_days",
    metadata,
    _column("rollup", Text(), "The rollup.", primary_key=True),
    _column("day", Date(), "A day that was loaded since the rollup was last built.", primary_key=True),
    comment="One row per rollup and day that it has yet to take in. Empty when all are up to date.",
    info={"facts": Facts("bookkeeping table", since=2)},
)

expected_days = sa.Table(
    "expected_days",
    metadata,
    _column("first_day", Date(), "First day of history: DEVIN_START_DATE."),
    _column("last_day", Date(), "The last day that was over."),
    comment="One row: the days that were to be loaded when a load last began.",
    info={"facts": Facts("bookkeeping table", since=5, parquet="whole")},
)

day_boundary = sa.Table(
    "day_boundary",
    metadata,
    _column("timezone", Text(), "The time zone of the clock that defines the day: DEVIN_TIMEZONE."),
    _column("day_start_hour", Integer(), "The hour on it at which a day begins: DEVIN_DAY_START_HOUR."),
    comment="One row: where a day begins, as it was set when a load last began.",
    info={"facts": Facts("bookkeeping table", since=7, parquet="whole")},
)

warehouse_version = sa.Table(
    "warehouse_version",
    metadata,
    _column("version", Integer(), "The version of the tables and views, which `migrations` counts."),
    comment="One row: the layout of this warehouse.",
    info={"facts": Facts("bookkeeping table", since=2, parquet="whole")},
)

# Views are created in this order, so one may select from those above it.


def _parts_of_calendar() -> tuple[sa.Column[Any], ...]:
    return (
        _column("week", Date(), "Its ISO week: the Monday."),
        _column("iso_year", Integer(), "The year that its ISO week belongs to."),
        _column("iso_week", Integer(), "The number of its ISO week in that year, 1 to 53."),
        _column("month", Date(), "Its month: the first day."),
        _column("quarter", Date(), "Its quarter: the first day."),
        _column("weekday", Integer(), "1 for Monday to 7 for Sunday."),
        _column("weekday_name", Text(), "Monday to Sunday."),
        _column("is_weekend", Boolean(), "True on Saturday and Sunday."),
    )


calendar = sa.Table(
    "calendar",
    views,
    _column("day", Date(), "The day."),
    *_parts_of_calendar(),
    comment="One row per day of history, loaded or not.",
    info={"facts": Facts("view", since=2, key=("day",))},
)

session_grid = sa.Table(
    "session_grid",
    views,
    _column("day", Date(), "The day."),
    _column("org_id", Text(), "The organization."),
    _column("org_name", Text(), "Its name when last listed; NULL if the API never gave one.", nullable=True),
    _count(
        "sessions_count",
        "Sessions created on that day in that organization. NULL: not loaded. 0: the API answered 0.",
        nullable=True,
    ),
    comment="One row per organization and day of history, loaded or not.",
    info={"facts": Facts("view", since=2, key=("day", "org_id"))},
)

reconciliation = sa.Table(
    "reconciliation",
    views,
    _column("day", Date(), "The day."),
    _count("control_total", "The API's own count for the day; NULL if not loaded.", nullable=True),
    _count("orgs_sessions_count", "Sum of the day's counts per organization; NULL if not loaded.", nullable=True),
    _count("unattributed_count", "control_total minus orgs_sessions_count; NULL if not loaded.", nullable=True),
    _column(
        "orgs_expected", Integer(), "How many organizations were to be counted; NULL if not loaded.", nullable=True
    ),
    _column("orgs_loaded", Integer(), "How many of them the API counted; NULL if not loaded.", nullable=True),
    _at("loaded_at", "When the day was last read; NULL if never.", nullable=True),
    _column(
        "verdict",
        Text(),
        "not loaded; proven: the organizations sum to the control total; unattributed: the control total is larger; "
        "contradiction: it is smaller, or days that were read together do not sum to the API's own count of all.",
    ),
    _count(
        "block_difference",
        "The API's count in one question over the days that were read together with this one, minus their "
        "control totals; NULL if they agree.",
        nullable=True,
    ),
    _column(
        "contradicted_orgs",
        Integer(),
        "How many organizations have days that do not sum to the API's own count of all; see contradictions.",
    ),
    comment="One row per day of history, loaded or not.",
    info={"facts": Facts("view", since=2, key=("day",))},
)

organization_days = sa.Table(
    "organization_days",
    views,
    _column("day", Date(), "The day."),
    _column("org_id", Text(), "The organization."),
    _column("org_name", Text(), "Its name when last listed; its id if the API never gave a name."),
    _count(
        "sessions_count",
        "Sessions created on that day in that organization. NULL: not loaded. 0: the API answered 0.",
        nullable=True,
    ),
    _column("is_loaded", Boolean(), "True if the day is loaded for this organization."),
    *_parts_of_calendar(),
    _column("verdict", Text(), "What is known of the whole day, over all organizations; see reconciliation."),
    _column("is_proven", Boolean(), "True if the day's verdict is proven."),
    _column("is_settled", Boolean(), "True if the day is expected to stay; see enterprise_sessions."),
    comment="One row per organization and day of history, loaded or not, with everything to filter and group by.",
    info={"facts": Facts("view", since=6, key=("day", "org_id"))},
)


def _of_enterprise(name: str, period: str, grain: str, first_day: str, rollup: sa.Table) -> sa.Table:
    return sa.Table(
        name,
        views,
        _column(period, Date(), f"First day of the {period}{first_day}."),
        _count("sessions_count", f"Sessions created in the {period} in the whole enterprise, over the loaded days."),
        _count("orgs_sessions_count", f"How many of them belong to organizations that were counted: {rollup.name}."),
        _count(
            "unattributed_count",
            "sessions_count minus orgs_sessions_count: sessions of organizations that were not counted. "
            "Negative if the API contradicted itself.",
        ),
        _count("active_orgs", "Organizations with at least one session."),
        _column("days_expected", Integer(), f"Days of the {period}."),
        _column("days_loaded", Integer(), f"Days of the {period} that are loaded."),
        _column("is_complete", Boolean(), f"True if every day of the {period} is loaded."),
        _column("is_settled", Boolean(), "True if it is complete and each of its days is settled."),
        comment=f"One row per {grain} with a loaded day, over the whole enterprise.",
        info={"facts": Facts("view", since=6, key=(period,))},
    )


enterprise_weekly_sessions = _of_enterprise(
    "enterprise_weekly_sessions", "week", "ISO week", ", a Monday", weekly_sessions
)
enterprise_monthly_sessions = _of_enterprise("enterprise_monthly_sessions", "month", "month", "", monthly_sessions)


RELATIONS = (
    organization_days,
    daily_sessions,
    weekly_sessions,
    monthly_sessions,
    enterprise_sessions,
    enterprise_weekly_sessions,
    enterprise_monthly_sessions,
    session_grid,
    reconciliation,
    calendar,
    organizations,
    daily_totals,
    session_revisions,
    contradictions,
    unattributed_sessions,
    user_daily_sessions,
    user_daily_totals,
    users,
    user_session_revisions,
    user_contradictions,
    user_unattributed_sessions,
    stale_days,
    expected_days,
    day_boundary,
    warehouse_version,
)
"""Every table and view, in the order in which readers need them."""

ROLLUPS = tuple(table for table in metadata.tables.values() if facts(table).kind == "rollup")


def present(connection: sa.Connection) -> set[str]:
    """The tables and views that a query finds by their names alone, including those that this role may not read."""
    names = """
        select lower(table_name) from information_schema.tables
        where table_catalog = current_database()
            and (table_schema = current_schema() or table_schema in (select unnest(current_schemas(false))))
    """  # lower, because to DuckDB, Users and users are one name
    if connection.dialect.name == "postgresql":  # whose information_schema omits those
        names = """
            select relname from pg_class
            where relnamespace = to_regnamespace(quote_ident(current_schema())) and relkind in ('r', 'p', 'v', 'm', 'f')
        """
    return set(connection.scalars(sa.text(names)))


def have_their_keys(connection: sa.Connection, names: set[str]) -> bool:
    """Whether each of these tables has the columns of its key, which tables of others with that name would lack."""
    columns = "select lower(table_name), lower(column_name) from duckdb_columns() where schema_name = current_schema()"
    if connection.dialect.name == "postgresql":
        columns = """
            select relname, attname from pg_class inner join pg_attribute on attrelid = pg_class.oid
            where relnamespace = to_regnamespace(quote_ident(current_schema()))
        """
    found = {(table, column) for table, column in connection.execute(sa.text(columns))}
    return all((name, column) in found for name in names for column in key(metadata.tables[name]))


def in_use(connection: sa.Connection) -> set[str]:
    """The names that no table or view can be created with: those `present`, and on PostgreSQL any other."""
    if connection.dialect.name != "postgresql":
        return present(connection)
    names = """
        select relname from pg_class where relnamespace = to_regnamespace(quote_ident(current_schema()))
        union select typname from pg_type where typnamespace = to_regnamespace(quote_ident(current_schema()))
    """
    return set(connection.scalars(sa.text(names)))


def is_among(day: sa.ColumnElement[date], days: Iterable[date]) -> sa.ColumnElement[bool]:
    """Whether a column has one of these days. They are literals, since DuckDB takes 75 µs of CPU for each parameter.

    It tries to import pandas each time, and searches every directory for it where it isn't installed.
    """
    return day.in_(sa.bindparam(None, list(days), type_=Date(), expanding=True, literal_execute=True))


def select(table: sa.Table) -> str:
    """The SELECT of a rollup or view, from its file: the same text for every database."""
    return _sql(f"{table.name}.sql")


def example(relation: sa.Table) -> tuple[str, str]:
    """A question that a table or view answers, and a SELECT that answers it on both DuckDB and PostgreSQL."""
    question, _, sql = _sql("examples", f"{relation.name}.sql").partition("\n")
    return question.removeprefix("-- "), sql.rstrip("\n")


def _sql(*path: str) -> str:
    return resources.files("warehouse").joinpath("sql", *path).read_text(encoding="utf-8")


def create(connection: sa.Connection) -> None:
    """Create the missing tables, and create or replace every view, with their comments."""
    create_without_comments(connection)
    describe(connection)


def create_without_comments(connection: sa.Connection) -> None:
    """As `create`, in half the time, for a database that nobody else sees."""
    there = present(connection)
    for table in metadata.sorted_tables:
        if table.name not in there:
            connection.execute(sa.schema.CreateTable(table))
    for view in views.tables.values():
        create_view(connection, view)


def create_view(connection: sa.Connection, view: sa.Table) -> None:
    """Create or replace a view, without its comments."""
    columns = (sa.column(c.name, c.type) for c in view.columns)
    connection.execute(sa.CreateView(sa.text(select(view)).columns(*columns), view.name, or_replace=True))


def describe(connection: sa.Connection, relations: Iterable[sa.Table] = RELATIONS) -> None:
    """Write the comment of each of these tables and views, and of its columns, into the database."""
    comments = [str(comment.compile(dialect=connection.dialect)) for r in relations for comment in _comments(r)]
    if comments:
        connection.exec_driver_sql(";".join(comments))  # one by one, a hundred of them take twice as long


def _comments(relation: sa.Table) -> Iterator[sa.schema.ExecutableDDLElement]:
    if relation.metadata is views:
        text = str(relation.comment).replace("'", "''")
        context = dict(name=relation.name, comment=text)
        yield sa.DDL("comment on view %(name)s is '%(comment)s'", context=context)  # type: ignore[no-untyped-call]
    else:
        yield sa.schema.SetTableComment(relation)
    yield from map(sa.schema.SetColumnComment, relation.columns)


def describe_changed(connection: sa.Connection) -> None:
    """Write the comments of the tables and views whose comments another release has worded otherwise.

    Only of those that this role owns: it may not change others.
    """
    stored = """
        select table_name, null, comment from duckdb_tables() where schema_name = current_schema()
        union all select view_name, null, comment from duckdb_views() where schema_name = current_schema()
        union all select table_name, column_name, comment from duckdb_columns() where schema_name = current_schema()
    """
    if connection.dialect.name == "postgresql":
        stored = """
            select relname, attname, col_description(pg_class.oid, attnum)
            from pg_class inner join pg_attribute on attrelid = pg_class.oid and attnum > 0 and not attisdropped
            where relnamespace = to_regnamespace(quote_ident(current_schema())) and pg_has_role(relowner, 'usage')
            union all select relname, null, obj_description(oid, 'pg_class') from pg_class
            where relnamespace = to_regnamespace(quote_ident(current_schema())) and pg_has_role(relowner, 'usage')
        """
    found = connection.execute(sa.text(stored))
    comments: dict[tuple[str, str | None], str | None] = {(name, column): comment for name, column, comment in found}

    def is_changed(relation: sa.Table) -> bool:
        wanted: dict[str | None, str | None] = {column.name: column.comment for column in relation.columns}
        wanted[None] = relation.comment
        differs = any(comments.get((relation.name, part)) != comment for part, comment in wanted.items())
        return (relation.name, None) in comments and differs

    describe(connection, filter(is_changed, RELATIONS))
