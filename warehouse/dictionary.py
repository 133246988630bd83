"""The data dictionary: what every table and view means, as Markdown. To write docs/data-dictionary.md: `make docs`."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from warehouse import tables

# One question for each table and view, with the SQL that answers it on DuckDB and PostgreSQL alike, in the order in
# which a reader needs them.
EXAMPLES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "daily_sessions": (
            "What share of the sessions of the last 28 days does each organization have?",
            """\
select
    org_id,
    sum(sessions_count) as sessions,
    round(100.0 * sum(sessions_count) / nullif(sum(sum(sessions_count)) over (), 0), 1) as percent
from daily_sessions
where day > (select max(day) from daily_sessions) - 28
group by org_id
order by sessions desc""",
        ),
        "enterprise_sessions": (
            "How do the last 7 days compare with the 7 before, in percent, on days that are expected to stay?",
            """\
select
    day,
    trailing_7_day_count,
    previous_week_count,
    round(cast(100 * week_over_week_change as numeric), 1) as percent
from enterprise_sessions
where is_settled
order by day desc
limit 14""",
        ),
        "weekly_sessions": (
            "How many sessions did each organization have in the last complete week, and in the one before it?",
            """\
select
    latest.week,
    latest.org_id,
    latest.sessions_count,
    previous.sessions_count as week_before
from weekly_sessions as latest
left join weekly_sessions as previous
    on latest.org_id = previous.org_id
    and latest.week = previous.week + 7
    and previous.is_complete
where
    latest.is_complete
    and latest.week = (select max(week) from weekly_sessions where is_complete)
order by latest.sessions_count desc""",
        ),
        "monthly_sessions": (
            "How many sessions a day did each organization have in each month? Incomplete months compare as well.",
            """\
select
    month,
    org_id,
    sessions_count,
    round(1.0 * sessions_count / days_loaded, 1) as sessions_per_day,
    is_complete
from monthly_sessions
order by month, sessions_count desc""",
        ),
        "session_grid": (
            "How many days of history are loaded for each organization, and which is the first that is not?",
            """\
select
    org_id,
    org_name,
    count(*) as days,
    count(sessions_count) as days_loaded,
    min(day) filter (where sessions_count is null) as first_day_not_loaded
from session_grid
group by org_id, org_name
order by days_loaded, org_id""",
        ),
        "reconciliation": (
            "How many days are proven, and how many are not?",
            """\
select
    verdict,
    count(*) as days,
    min(day) as first_day,
    max(day) as last_day
from reconciliation
group by verdict
order by verdict""",
        ),
        "calendar": (
            "How many sessions does an average Monday have, an average Tuesday and so on?",
            """\
select
    weekday_name,
    count(*) as days_loaded,
    round(avg(sessions_count), 1) as sessions_per_day
from calendar
inner join enterprise_sessions using (day)
group by weekday, weekday_name
order by weekday""",
        ),
        "organizations": (
            "When did each organization have its first and its last session? Those that went quiet come last.",
            """\
select
    org_id,
    org_name,
    min(day) filter (where sessions_count > 0) as first_active_day,
    max(day) filter (where sessions_count > 0) as last_active_day
from organizations
left join daily_sessions using (org_id)
group by org_id, org_name
order by last_active_day desc nulls last, org_id""",
        ),
        "daily_totals": (
            "When were the last 14 loaded days read, and what was found?",
            """\
select
    day,
    loaded_at,
    sessions_count,
    orgs_loaded,
    orgs_expected,
    unattributed_count
from daily_totals
order by day desc
limit 14""",
        ),
        "session_revisions": (
            "How many days afterwards do counts still change? DEVIN_LOOKBACK_DAYS should cover most of it.",
            """\
select
    cast(revised_at as date) - day as days_afterwards,
    count(*) as revisions,
    sum(abs(new_count - previous_count)) as sessions
from session_revisions
group by cast(revised_at as date) - day
order by days_afterwards""",
        ),
        "contradictions": (
            "Which days does the API count differently when it is asked about several in one question?",
            """\
select
    first_day,
    last_day,
    org_id,
    max(block_sessions_count) as in_one_question,
    max(stored_sessions_count) as day_by_day
from contradictions
group by first_day, last_day, org_id
order by first_day, org_id nulls first""",
        ),
        "user_daily_sessions": (
            "How many users were active on each of the last 28 days?",
            """\
select
    day,
    count(*) filter (where sessions_count > 0) as active_users,
    sum(sessions_count) as sessions
from user_daily_sessions
where day > (select max(day) from user_daily_sessions) - 28
group by day
order by day""",
        ),
        "user_daily_totals": (
            "How many sessions of each month belong to none of the users that are counted?",
            """\
select
    cast(date_trunc('month', day) as date) as month,
    sum(sessions_count) as sessions,
    sum(unattributed_count) as unattributed
from user_daily_totals
group by cast(date_trunc('month', day) as date)
order by month""",
        ),
        "users": (
            "When did each user have a session last? Those who never had one come first.",
            """\
select
    user_id,
    max(day) filter (where sessions_count > 0) as last_active_day
from users
left join user_daily_sessions using (user_id)
group by user_id
order by last_active_day nulls first, user_id""",
        ),
        "user_session_revisions": (
            "Which counts per user were restated in the last 30 days?",
            """\
select
    revised_at,
    day,
    user_id,
    previous_count,
    new_count
from user_session_revisions
where revised_at > current_timestamp - interval '30 days'
order by revised_at desc, day, user_id""",
        ),
        "user_contradictions": (
            "Which users does the API count differently over several days than day by day?",
            """\
select
    user_id,
    count(*) as days
from user_contradictions
where user_id is not null
group by user_id
order by days desc, user_id""",
        ),
        "stale_days": (
            "Which rollups are behind, and by which days? No row: none.",
            """\
select
    rollup,
    count(*) as days,
    min(day) as first_day,
    max(day) as last_day
from stale_days
group by rollup
order by rollup""",
        ),
        "history": (
            "How many days is history, and how many of them are loaded?",
            """\
select
    first_day,
    last_day,
    last_day - first_day + 1 as days,
    (select count(*) from daily_totals where day between first_day and last_day) as days_loaded
from history""",
        ),
        "warehouse_version": (
            "Which layout does this warehouse have?",
            """\
select version
from warehouse_version""",
        ),
    }
)

# Views have no key that a database would enforce.
VIEW_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"session_grid": ("day", "org_id"), "reconciliation": ("day",), "calendar": ("day",)}
)

# What the project itself keeps count of; not among the Parquet files.
BOOKKEEPING = ("stale_days", "history", "warehouse_version")

# Every comment: of tables and views, where column_name is NULL, and of their columns.
COMMENTS: Mapping[str, str] = MappingProxyType(
    {
        "duckdb": """\
select table_name, column_name, comment from duckdb_columns() where not internal
union all
select table_name, null, comment from duckdb_tables()
union all
select view_name, null, comment from duckdb_views() where not internal""",
        "postgresql": """\
select relname as table_name, null as column_name, obj_description(oid, 'pg_class') as comment
from pg_class
where relnamespace = current_schema()::regnamespace and relkind in ('r', 'v')
union all
select relname, attname, col_description(attrelid, attnum)
from pg_attribute
inner join pg_class on pg_attribute.attrelid = pg_class.oid
where relnamespace = current_schema()::regnamespace and relkind in ('r', 'v') and attnum > 0 and not attisdropped""",
    }
)

_PREFACE = f"""\
# Data dictionary

What is in the warehouse, table by table. `make docs` writes this page from `warehouse/tables.py`; do not edit it.

## Where to read

- **DuckDB**: the snapshot `data/published/devin_sessions.duckdb`, or the Parquet files in `data/published/parquet`.
  They are beside the warehouse, so elsewhere if `WAREHOUSE_URL` says so. Each run replaces a file as a whole: whoever
  has the old one open keeps it, and nobody waits. Of `daily_sessions` and `user_daily_sessions` there is one Parquet
  file a month, of the other tables one each; views and bookkeeping tables are in the snapshot only. A new file is
  readable for its owner alone; the rights that you give a file are kept.
- **PostgreSQL and MotherDuck**: the warehouse itself. All tables, views and columns are the same.

The example queries run on DuckDB and PostgreSQL as they are.

## What to know

- **Days.** `day` is a date. It begins at midnight UTC unless `DEVIN_TIMEZONE` or `DEVIN_DAY_START_HOUR` says
  otherwise; `daily_totals.window_start` and `window_end` are its exact limits, the end excluded. One warehouse has one
  kind of day. A `timestamp with time zone` is an instant, which clients show in their own time zone:
  `set time zone 'UTC'`.
- **NULL and 0.** 0 is what the source says. What is not loaded has no row in `daily_sessions` and is NULL in
  `session_grid`; that includes days that were read before an organization was first listed. A question that failed is
  never stored as 0.
- **Asked and derived.** A count was either asked itself or follows from other answers (`is_derived`), such as a total
  minus all its other parts. Where the source contradicts itself, the derived counts concerned are asked themselves.
- **Control total.** The source's own count for a day, with no filter. What the organizations leave over of it is
  `unattributed_count`. A day is proven if that is 0
  and the days that were read together sum to the source's own count of all of them (`contradictions` has the others).
- **`is_complete`** (weeks and months): every day of the period is loaded for this organization.
- **`is_settled`** (`enterprise_sessions`): the day was last read after its last scheduled look-back
  (`DEVIN_LOOKBACK_DAYS`). Before that its counts may still change. What changed is in `session_revisions`.
- **Kinds.** A *table* is filled from the source. A *rollup* is a table that its SQL file fills from others after each
  load. A *view* is selected when it is read.
- **Users.** The tables of users are empty unless `DEVIN_USER_IDS` is set.

## Comments in the database

Each description on this page is in the database too, as a comment. In psql: `\\d+ daily_sessions`. All of them, with
`column_name` NULL for a table or view itself:

```sql
-- DuckDB
{COMMENTS["duckdb"]}
```

```sql
-- PostgreSQL
{COMMENTS["postgresql"]}
```

## Tables and views

"""


def as_markdown() -> str:
    """The whole page."""
    relations = [_relation(name) for name in EXAMPLES]
    contents = [
        "| name | kind | what it holds |",
        "|---|---|---|",
        *(f"| [{r.name}](#{r.name}) | {_kind(r)} | {_cell(r.comment)} |" for r in relations),
    ]
    return _PREFACE + "\n".join([*contents, *(line for r in relations for line in _section(r))]) + "\n"


def _relation(name: str) -> sa.Table:
    found = tables.metadata.tables.get(name)
    return tables.views.tables[name] if found is None else found


def _kind(relation: sa.Table) -> str:
    if relation.metadata is tables.views:
        return "view"
    if relation in tables.ROLLUPS:
        return "rollup"
    return "bookkeeping table" if relation.name in BOOKKEEPING else "table"


def _section(relation: sa.Table) -> Iterator[str]:
    key = VIEW_KEYS.get(relation.name) or [c.name for c in relation.primary_key.columns]
    spelled_key = ", ".join(f"`{name}`" for name in key) or "none"
    kind = _kind(relation)
    file = f"{relation.name}.sql"
    source = f" ([{file}](../warehouse/sql/{file}))" if kind in ("rollup", "view") else ""
    title, sql = EXAMPLES[relation.name]
    yield from ["", f"### {relation.name}", "", f"{relation.comment}", ""]
    yield from [f"Kind: {kind}{source}. Key: {spelled_key}.", ""]
    yield from ["| column | type | NULL | meaning |", "|---|---|---|---|"]
    for column in relation.columns:
        type_ = column.type.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
        yield f"| `{column.name}` | {type_} | {'possible' if column.nullable else 'no'} | {_cell(column.comment)} |"
    yield from ["", title, "", "```sql", sql, "```"]


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def main() -> None:
    """Write the page to the file that is named, or to standard output."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(as_markdown(), encoding="utf-8")
    else:
        sys.stdout.write(as_markdown())


if __name__ == "__main__":
    main()
