"""CONTRIBUTING's recipes, followed to the letter in a copy of the project: what they promise is there, and its tests
pass.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import pytest

from tests.support.loads import fill
from tests.support.noon import NOON, ago
from tests.support.person import copy_project
from tests.support.promised import truth
from tests.support.world import World
from warehouse import migrations

ROLLUP = """
quarterly_sessions = sa.Table(
    "quarterly_sessions",
    metadata,
    _column("quarter", Date(), "First day of the quarter.", primary_key=True),
    _column("org_id", Text(), "The organization.", primary_key=True),
    _count("sessions_count", "Sessions created in the quarter, over the days that are loaded."),
    _never_negative("sessions_count"),
    comment="One row per organization and quarter.",
    info={{"facts": Facts("rollup", since={version}, parquet="whole", reach=quarter_of)}},
)

"""
PERIOD = '''

def quarter_of(day: date) -> tuple[date, date]:
    """The first and the last day of its quarter."""
    first = day.replace(month=3 * ((day.month - 1) // 3) + 1, day=1)
    return first, month_of(first + timedelta(days=70))[1]
'''
SQL = """-- One row per organization and quarter.
select
    cast(date_trunc('quarter', day) as date) as quarter,
    org_id,
    cast(sum(sessions_count) as bigint) as sessions_count

from daily_sessions
where day between :first_day and :last_day
group by 1, 2
"""
EXAMPLE = """-- How many sessions did each organization have in each quarter?
select quarter, org_name, sessions_count
from quarterly_sessions inner join organizations using (org_id)
order by quarter, org_name
"""
SETTING = """    devin_greeting: str = _setting(
        "hello",
        "What `devin-sessions greet` says.",
        "up to ten small letters and digits",
        pattern="^[a-z0-9]{1,10}$",
    )
"""
CLAIM = """        Claim(
            "no_count_is_huge",
            f"No huge counts{of_whom}",
            "No count is above a million.",
            no_count_is_huge,
        ),
"""
JUDGE = '''

def no_count_is_huge(connection: sa.Connection, dimension: Dimension, settings: Settings) -> Verdict:
    """A yellow check: someone should look at it."""
    cells = dimension.cells.c
    huge = connection.scalar(sa.select(sa.func.count()).where(cells.sessions_count > 1_000_000)) or 0
    if huge:
        return Verdict(False, f"{huge} counts are above a million.", {}, dg.AssetCheckSeverity.WARN)
    return Verdict(True, "No count is above a million.", {})
'''
COMMAND = '''

@app.command(cls=Command, context_settings=_OPTIONS)
def greet() -> None:
    """Greet you."""
    from pipelines.settings import Settings

    say(Settings.load().devin_greeting)
'''


def edit(path: Path, before: str, text: str) -> None:
    """Put `text` before the first occurrence of `before`."""
    content = path.read_text(encoding="utf-8")
    assert before in content, f"{before} is not in {path}"
    path.write_text(content.replace(before, text + before, 1), encoding="utf-8")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy in which every recipe was followed."""
    root = tmp_path_factory.mktemp("copy")
    copy_project(root)
    # Add a rollup
    edit(root / "warehouse/tables.py", "\nstale_days = sa.Table(", ROLLUP.format(version=migrations.VERSION + 1))
    edit(root / "warehouse/tables.py", "    enterprise_sessions,\n    enterprise_weekly", "    quarterly_sessions,\n")
    edit(root / "warehouse/tables.py", "up_to_days_later, week_of", "quarter_of, ")
    append(root / "warehouse/periods.py", PERIOD)
    (root / "warehouse/sql/quarterly_sessions.sql").write_text(SQL, encoding="utf-8")
    (root / "warehouse/sql/examples/quarterly_sessions.sql").write_text(EXAMPLE, encoding="utf-8")
    edit(
        root / "docs/sql.md",
        "| `enterprise_sessions` |",
        "| `quarterly_sessions` | organization and quarter | sums |\n",
    )
    # Add a setting
    edit(root / "pipelines/settings.py", "    devin_window_end: Literal", SETTING)
    edit(root / "pipelines/settings_page.py", '        "devin_window_end",\n', '        "devin_greeting",\n')
    known = root / "tests/settings/test_settings.py"
    edit(known, '        "devin_schema": "",\n', '        "devin_greeting": "hello",\n')
    edit(known, '        devin_schema="metrics",\n', '        devin_greeting="salve",\n')
    edit(known, '        "devin_schema": "metrics",\n', '        "devin_greeting": "salve",\n')
    # Add a check
    edit(root / "pipelines/checks.py", "    ]\n    return [*claims, CONTROL_TOTALS_AGREE]", CLAIM)
    append(root / "pipelines/checks.py", JUDGE)
    row = "| `no_count_is_huge` | no count is above a million | yellow |\n"
    edit(root / "docs/numbers.md", "\nWith `DEVIN_USER_IDS`, `user_daily_sessions` has the same", row)
    # Add a command
    append(root / "pipelines/command/cli.py", COMMAND)
    append(root / "docs/first-hour.md", "\nWhoever wants to be greeted types `devin-sessions greet`.\n")
    run(root, "-m", "warehouse.dictionary", "docs/data-dictionary.md")
    run(root, "-m", "pipelines.settings_page", "docs/settings.md")
    yield root


def run(root: Path, *arguments: str, code: int = 0, variables: Mapping[str, str] | None = None) -> str:
    """What Python prints with these arguments in the copy."""
    inherited = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}  # PostgreSQL's
    environment = {**inherited, "PYTHONPATH": str(root), **(variables or {})}
    ended = subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout


def test_a_new_rollup_has_an_asset_and_the_days_of_before_and_a_new_check_is_evaluated(
    copy: Path, world: World
) -> None:
    report = world.directory / "report.html"
    world.configure(devin_timezone=NOON, devin_start_date=ago(40), devin_report_path=str(report))
    fill(world, ago(40), ago(2))
    told = run(copy, "-m", "pipelines", "backfill", "yesterday")
    assert "1 of 1 days loaded" in told
    parquet = world.directory / "published/parquet/quarterly_sessions.parquet"
    counted = duckdb.sql(f"select cast(sum(sessions_count) as bigint) from '{parquet}'").fetchone()
    assert counted == (truth(world.source, ago(40), days=40),), "those of before are in it"
    assert "No huge counts" in report.read_text(encoding="utf-8")


def test_a_new_command_reads_a_new_setting_and_refuses_what_is_not_allowed(copy: Path, tmp_path: Path) -> None:
    variables = {"DEVIN_HOME": str(tmp_path)}
    assert run(copy, "-m", "pipelines", "greet", variables=variables) == "hello\n"
    assert run(copy, "-m", "pipelines", "greet", variables={**variables, "DEVIN_GREETING": "salve"}) == "salve\n"
    run(copy, "-m", "pipelines", "greet", code=2, variables={**variables, "DEVIN_GREETING": "HI!"})
    assert "`DEVIN_GREETING` | `hello`" in (copy / "docs/settings.md").read_text(encoding="utf-8")


def test_the_tests_pass_that_hold_names_and_pages_together(copy: Path) -> None:
    whole = ("test_definitions.py", "test_dictionary.py", "test_docs.py", "settings/test_settings.py")
    of_migrations = ("layout", "later_versions", "loses_no_row", "same_rows", "rebuilt", "only_reads")
    left_out = "not postgresql and not last"  # a whole run, as the first test above has one
    chosen = f"{left_out} and (not test_migrations or {' or '.join(of_migrations)})"
    files = [f"tests/{module}" for module in (*whole, "test_migrations.py")]
    run(copy, "-m", "pytest", "-q", "--numprocesses=0", "-k", chosen, *files)
