"""The data dictionary: what every table and view means, as Markdown. `make docs` writes docs/data-dictionary.md."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from warehouse import tables

# Every comment on a table or view (column_name is NULL) and on a column.
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
where relnamespace = to_regnamespace(quote_ident(current_schema())) and relkind in ('r', 'v')
union all
select relname, attname, col_description(attrelid, attnum)
from pg_attribute
inner join pg_class on pg_attribute.attrelid = pg_class.oid
where relnamespace = to_regnamespace(quote_ident(current_schema())) and relkind in ('r', 'v')
    and attnum > 0 and not attisdropped""",
    }
)

_PREFACE = f"""\
# Data dictionary

What the warehouse contains, table by table. `make docs` generates this page from `warehouse/tables.py` and
`warehouse/sql/examples/`; don't edit it by hand.

## Where to read the data

- **DuckDB**: the snapshot `data/published/devin_sessions.duckdb`, or the Parquet files in `data/published/parquet`.
  They are next to the warehouse, so `WAREHOUSE_URL` determines their directory. Each run replaces each file as a whole,
  so readers never wait: one that has the old file open keeps it. `daily_sessions` and `user_daily_sessions` have one
  Parquet file per month, the other tables one each; views and `stale_days` are only in the snapshot. Rows are in
  the order of the key. A new file is readable only by its owner; permissions that you set on a file are kept.
- **PostgreSQL and MotherDuck**: the warehouse itself, with the same tables, views and columns.

The example queries run unchanged on DuckDB and PostgreSQL.

## What to know

- **Days.** `day` is a date. It begins at midnight UTC unless `DEVIN_TIMEZONE` or `DEVIN_DAY_START_HOUR` says
  otherwise; `daily_totals.window_start` and `window_end` are its exact bounds, the end excluded. All days in a
  warehouse begin at the same hour in the same time zone, which are in `day_boundary`. A `timestamp with time zone` is
  an instant, which clients show in their own time zone; to see UTC, `set time zone 'UTC'`.
- **NULL and 0.** 0 means that the API returned 0. What is not loaded has no row in `daily_sessions` and is NULL in
  `session_grid`; that includes days that were read before an organization was first listed. A failed request
  is never stored as 0.
- **Asked for or derived.** A count was either asked for directly or derived from other answers (`is_derived`), such as
  a total minus all its other parts. Where the API contradicts itself, the affected derived counts are asked for too.
- **Control total.** The API's own count for a day, with no filter. Subtracting the organizations' counts leaves
  `unattributed_count`. A day is proven if that is 0 and the days that were read together sum to the API's own count of
  all of them (those that don't are in `contradictions`).
- **`is_complete`** (weeks and months): every day of the period is loaded for this organization.
- **`is_settled`** (`enterprise_sessions`): the day was last read after its last scheduled look-back
  (`DEVIN_LOOKBACK_DAYS`). Until then its counts may still change. What changed is in `session_revisions`.
- **Kinds.** A *table* is filled from the API. A *rollup* is a table that its SQL file fills from other tables after
  each load. A *view* runs its query when it is read. A *bookkeeping table* is for the project's own use:
  in the snapshot, it is in the schema `bookkeeping`, as in `bookkeeping.expected_days`, and `calendar`, which reads it,
  is a table. `devin-sessions query` finds it by its name alone. On PostgreSQL, the role for analysts may not read it.
- **Users.** The tables about users are empty unless `DEVIN_USER_IDS` is set.

## Comments in the database

Each description on this page is also in the database, as a comment. In psql, use `\\d+ daily_sessions`. To list all of
them, with `column_name` NULL for the table or view itself:

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
    contents = [
        "| name | kind | what it holds |",
        "|---|---|---|",
        *(f"| [{r.name}](#{r.name}) | {tables.facts(r).kind} | {_cell(r.comment)} |" for r in tables.RELATIONS),
    ]
    return _PREFACE + "\n".join([*contents, *(line for r in tables.RELATIONS for line in _section(r))]) + "\n"


def _section(relation: sa.Table) -> Iterator[str]:
    key_columns = ", ".join(f"`{name}`" for name in tables.key(relation)) or "none"
    kind = tables.facts(relation).kind
    file = f"{relation.name}.sql"
    source = f" ([{file}](../warehouse/sql/{file}))" if kind in ("rollup", "view") else ""
    question, sql = tables.example(relation)
    yield from ["", f"### {relation.name}", "", f"{relation.comment}", ""]
    yield from [f"Kind: {kind}{source}. Key: {key_columns}.", ""]
    yield from ["| column | type | NULL | meaning |", "|---|---|---|---|"]
    for column in relation.columns:
        type_ = column.type.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
        yield f"| `{column.name}` | {type_} | {'possible' if column.nullable else 'no'} | {_cell(column.comment)} |"
    yield from ["", question, "", "```sql", sql, "```"]


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def main() -> None:
    """Write the page to the file given as an argument, or to standard output."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(as_markdown(), encoding="utf-8")
    else:
        sys.stdout.write(as_markdown())


if __name__ == "__main__":
    main()
