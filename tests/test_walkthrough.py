"""Follows the documentation as a person would: types its commands, in order, into a shell in a copy of the project, and
checks what it promises. The last tests make sure that no command is left out."""

import csv
import grp
import os
import pwd
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, timedelta
from functools import partial
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa

from pipelines.home import PROJECT
from resources.sandbox.server import Sandbox
from tests.support.noon import NOON, ago
from tests.support.pages import NAMES, blocks, environment_file, text, units
from tests.support.person import Person
from tests.support.postgresql import PostgreSQL
from tests.support.promised import check_loaded, check_report, check_ui, days, table, truth, url_of
from tests.support.typed import COMMANDS, NOT_RUN, TOKEN, Part

YESTERDAY = ago(1)

FOLLOWED: list[Part] = []
Test = Callable[..., None]


def walks(*parts: Part) -> Callable[[Test], Test]:
    """Mark which parts of the pages a test follows. The test fails if it leaves one out."""

    def with_parts(test: Test) -> Test:
        FOLLOWED.extend(parts)
        test.parts = parts  # type: ignore[attr-defined]  # `person` reads it
        return test

    return with_parts


@pytest.fixture
def person(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Person]:
    parts = list(request.function.parts)
    someone = Person(tmp_path, parts)
    yield someone
    someone.leaves()
    assert {entry.name for entry in someone.home.iterdir()} <= {".cache"}, "nothing else is left in the home directory"
    assert parts == [] or request.session.testsfailed, "a test follows all the parts it is marked with"


@pytest.fixture
def source() -> Iterator[Sandbox]:
    with Sandbox(organizations=2) as source:
        yield source


# The first hour
FIRST_HOUR = "docs/first-hour.md"


@walks(Part(FIRST_HOUR, "1. See it work, without a key"))
def test_a_clone_becomes_a_report_of_sandbox_data_without_a_key(person: Person) -> None:
    (part,) = person.parts
    demo = Sandbox(organizations=12)
    variables = person.clone / ".env"
    variables.write_text("DEVIN_TIMEZONE=Asia/Tokyo\n", encoding="utf-8")
    variables.chmod(0o600)
    elsewhere = {"DEVIN_API_KEY": "apk_user_real", "DEVIN_ORG_IDS": "org-real"}
    person.sets(variables, **elsewhere, WAREHOUSE_URL="duckdb:///data/real.duckdb")

    def look(line: str) -> None:
        with person.runs(f"{line} --days 14") as running:
            check_ui(running, url_of(person, FIRST_HOUR), loaded=14)

    def without_settings(line: str) -> str:
        """The person who reads this part of the page has none yet."""
        aside = variables.rename(person.directory / "aside")
        shown = person.types(line)
        aside.rename(variables)
        return shown

    person.follows(part, {"devin-sessions demo --ui": look, "devin-sessions status": without_settings})
    shown_by_demo = person.outputs["make demo"]
    for promised in ("90 of 90", "Top 8 of 12 organizations", "Last 6 of ", "What to try next", "demo --ui"):
        assert promised in shown_by_demo
    (exported,) = (name.removeprefix("export ") for name in person.outputs if name.startswith("export "))
    first_query = next(name for name in person.outputs if name.startswith("devin-sessions query "))
    exported = re.escape(exported.replace("$PWD", str(person.clone)))
    assert re.search(rf"^  export {exported}\n  \S*{re.escape(first_query)}$", shown_by_demo, re.MULTILINE)
    status = person.outputs["devin-sessions status"]
    assert "90 of 90" in status
    assert "Missing" not in status, "no day that the demo never had"
    recent, verdicts = (table(said) for name, said in person.outputs.items() if " query " in name)
    assert len(recent) == 7
    assert {row["day"]: row["sessions_count"] for row in recent} == {
        row["day"]: str(truth(demo, row["day"], zone=UTC)) for row in recent
    }
    last = max(row["day"] for row in recent)
    check_report(person.clone / "data/demo/published/report.html", demo, last, UTC)
    assert verdicts == [{"verdict": "proven", "days": "90"}]
    today = date.fromisoformat(last) + timedelta(days=1)
    monday = today - timedelta(days=today.weekday() + 7)
    counts = {o.org_name: truth(demo, monday, o.org_id, days=7, zone=UTC) for o in demo.organizations}
    largest = sorted(counts, key=lambda name: -counts[name])[:5]
    (sql,) = blocks(PROJECT / "README.md", "sql")
    with duckdb.connect(str(person.clone / "data/demo/published/devin_sessions.duckdb"), read_only=True) as connection:
        assert connection.sql(sql).fetchall() == [(monday, name, counts[name]) for name in largest]
    assert [entry.name for entry in (person.clone / "data").iterdir()] == ["demo"], "nothing else is touched"


# From a key to a nightly schedule


KEY, PROBE = Part(FIRST_HOUR, "2. The key"), Part(FIRST_HOUR, "3. Probe the API before you load anything")
HISTORY, NUMBERS = (
    Part(FIRST_HOUR, "4. A few days first, then all of history"),
    Part(FIRST_HOUR, "5. Look at your numbers"),
)
NIGHTLY = Part(FIRST_HOUR, "6. Every night", but="make dev")


@walks(KEY, PROBE, HISTORY, NUMBERS, NIGHTLY)
def test_a_key_becomes_a_nightly_schedule(person: Person, source: Sandbox) -> None:
    variables, published = person.clone / ".env", person.clone / "data/published"
    person.follows(KEY)
    assert variables.stat().st_mode & 0o777 == 0o600
    assert "DEVIN_API_KEY=\n" in variables.read_text(encoding="utf-8")
    first, week, later = ago(30), (ago(29), ago(23)), ago(22)
    person.rewritten |= {"2025-06-02": week[0], "2025-06-08": week[1], "2025-06-30": ago(8)}
    person.sets(variables, DEVIN_API_KEY=source.api_key, DEVIN_API_URL=source.url)
    person.sets(variables, DEVIN_START_DATE=first, DEVIN_TIMEZONE=NOON)

    person.follows(PROBE)
    for said in (person.outputs["devin-sessions probe"], person.outputs["devin-sessions probe --until 2025-06-30"]):
        assert {row["verdict"] for row in table(said)} <= {"good", "note", ""}
    assert not published.exists()

    def look_before_all_is_loaded(line: str) -> str:
        check_loaded(published / "devin_sessions.duckdb", source, *week)
        return person.asks(line, code=1)

    person.follows(
        HISTORY, {"devin-sessions status": look_before_all_is_loaded, "devin-sessions backfill --missing": person.asks}
    )
    assert f"Missing: {first}, {later}…{YESTERDAY}" in person.outputs["devin-sessions status"]
    assert "Next run: " in person.outputs["devin-sessions status"]
    assert "23 of 23 days loaded" in person.outputs["devin-sessions backfill --missing"]
    check_loaded(published / "devin_sessions.duckdb", source, first, YESTERDAY)

    person.follows(NUMBERS)
    proven, weeks = (table(said) for name, said in person.outputs.items() if " query " in name)
    assert [row["day"] for row in proven] == [f"{day}" for day in reversed(days(first, YESTERDAY)[-14:])]
    assert [row["control_total"] for row in proven] == [str(truth(source, row["day"])) for row in proven]
    assert {row["verdict"] for row in proven} == {"proven"}
    whole = [row for row in weeks if row["is_complete"] == "true"]
    assert len(whole) > len(source.organizations)
    assert [row["sessions_count"] for row in whole] == [
        str(truth(source, row["week"], row["org_id"], days=7)) for row in whole
    ]
    check_report(published / "report.html", source, YESTERDAY)
    person.follows(NIGHTLY)
    assert person.types("make --dry-run dev").split() == [".venv/bin/devin-sessions", "ui"], "so it is the same"
    assert url_of(person, FIRST_HOUR) == url_of(person, README)


# The README


README, TOOLS, MESSAGES = "README.md", "docs/connecting.md", "docs/troubleshooting.md"
START = Part(README, "Devin session metrics", but="make demo")
REAL_USE, IN_SQL = Part(README, "Real use"), Part("docs/sql.md", "From the command line")
WITHOUT_A_KEY = Part(FIRST_HOUR, "Commands against the sandbox")
SPREADSHEETS, WRONG_USE = Part(TOOLS, "Excel, and anything else that speaks ODBC"), Part(MESSAGES, "Settings and use")


@walks(START, REAL_USE, IN_SQL, SPREADSHEETS, WRONG_USE, WITHOUT_A_KEY)
def test_the_readme_leads_from_a_key_to_sql(person: Person, source: Sandbox) -> None:
    published, snapshot = person.clone / "data/published", "data/published/devin_sessions.duckdb"
    person.follows(START)
    assert all(f"make {target}" in person.outputs["make help"] for target in ("demo", "test", "dev", "check"))

    # The year and the month of the pages, in fewer days.
    first, last = ago(40), ago(8)
    person.rewritten |= {"2025-01-01": first, "2025-12-31": last, "2025-01-31": ago(35)}

    def set_key(line: str) -> None:
        person.types(line)
        own = {"DEVIN_API_KEY": source.api_key, "DEVIN_API_URL": source.url}
        person.sets(person.clone / ".env", **own, DEVIN_START_DATE=first, DEVIN_TIMEZONE=NOON)

    def look(line: str) -> None:
        with person.runs(line) as running:
            check_ui(running, url_of(person, README), loaded=33)

    person.follows(
        REAL_USE,
        {"cp .env.example .env": set_key, "devin-sessions status": partial(person.asks, code=1), "make dev": look},
    )
    assert "33 of 33 days loaded" in person.outputs["devin-sessions backfill 2025-01-01 2025-12-31"]
    assert f"Missing: {ago(7)}…{YESTERDAY}" in person.outputs["devin-sessions status"]
    check_loaded(person.clone / snapshot, source, first, last)
    check_report(published / "report.html", source, last)

    (person.programs / "duckdb").symlink_to(Path(sys.prefix) / "bin" / "duckdb")
    asked = "select count(*) from daily_totals; delete from daily_totals;"
    shell = f"duckdb -readonly {snapshot}"
    person.follows(IN_SQL, {shell: partial(person.types, answers=asked, code=1)})
    assert "33" in person.outputs[shell]
    assert "attached in read-only mode" in person.outputs[shell]
    (recent,) = (table(said) for name, said in person.outputs.items() if "limit 14" in name)
    assert [(row["day"], row["sessions_count"]) for row in recent] == [
        (f"{day}", str(truth(source, day))) for day in reversed(days(first, last)[-14:])
    ]
    with (person.clone / "daily_sessions.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 33 * len(source.organizations)
    whole_time = truth(source, first, days=33)
    assert sum(int(cell["sessions_count"]) for cell in cells) == whole_time
    (of_parquet,) = (said for name, said in person.outputs.items() if name.startswith("duckdb -c"))
    assert re.search(rf" {whole_time} ", of_parquet)

    person.follows(SPREADSHEETS)
    with (person.clone / "monthly_sessions.csv").open(encoding="utf-8-sig") as file:
        assert sum(int(row["sessions_count"]) for row in csv.DictReader(file)) == whole_time
    person.follows(WRONG_USE, {"devin-sessions backfill 2025-01-01 2025-01-31": person.asks})
    assert "Nothing to do" in person.outputs["devin-sessions backfill 2025-01-01 2025-01-31"]

    def use_sandbox(line: str) -> None:
        with person.runs(line) as running:
            running.wait_for(lambda: "DAGSTER_HOME" in running.output)
            for export in re.findall(r"^  (export .*)$", running.output, re.MULTILINE):
                person.types(export)
            person.asks(".venv/bin/devin-sessions probe")
        assert re.search(r"Stopped after [1-9]\d* requests\.", running.output)

    person.follows(WITHOUT_A_KEY, {"devin-sessions sandbox": use_sandbox})


# Deployment


DEPLOYMENT = "docs/deployment.md"
INSTALL, FIRST_LOAD = Part(DEPLOYMENT, "Install"), Part(DEPLOYMENT, "The first load")
ANALYSTS, UPGRADE = Part(DEPLOYMENT, "Analysts"), Part(DEPLOYMENT, "Upgrade")
BACKUP = Part(DEPLOYMENT, "Backup", but="pg_dump .*")

SYSTEMD_RUN = """#!/bin/bash
# Like systemd-run and systemd units: the environment comes from the file alone, and there is no home directory.
set -eu
for option; do
    case $option in
        --property=EnvironmentFile=*) mapfile -t variables < "${option#*=*=}" ;;
        --property=UMask=*) umask "${option##*=}" ;;
        --working-directory=*) cd "${option#*=}" ;;
        --quiet | --pty | --pipe | --wait | --collect | --uid=devin-sessions | --gid=devin-sessions) ;;
        -*) echo "unknown: $option" >&2; exit 2 ;;
        *) break ;;
    esac
    shift
done
exec env -i "PATH=$PATH" HOME=/nonexistent "PYTHONPATH=$PYTHONPATH" "${variables[@]}" "$@"
"""


def serve(person: Person, source: Sandbox) -> Path:
    """Prepare the person's machine so that the project can be deployed without root. Returns the state directory."""
    state, settings, backup = (person.directory / name for name in ("state", "settings", "backup"))
    backup.mkdir()
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    person.rewritten |= {
        "/opt/devin-session-metrics": str(person.clone),
        "/var/lib/devin-sessions": str(state),
        "/etc/devin-sessions": str(settings),
        "/usr/local/sbin": str(person.programs),
        "BACKUP": str(backup),
        "-o devin-sessions -g devin-sessions": f"-o {user} -g {group}",
        "devin-analysts": group,
        # This test's key and start date.
        "apk_user_…": source.api_key,
        "DEVIN_START_DATE=2025-01-01": f"DEVIN_START_DATE={ago(20)}",
    }
    stand_in = person.programs / "systemd-run"
    stand_in.write_text(SYSTEMD_RUN, encoding="utf-8")
    stand_in.chmod(0o755)
    return state


def write_settings(person: Person, source: Sandbox, **changed: str) -> None:
    """Write the environment file as the page says, with the URL of this test's API."""
    variables = environment_file() | {"DEVIN_API_URL": source.url, "DEVIN_TIMEZONE": NOON} | changed
    lines = [person.here(f"{name}={value}") for name, value in variables.items()]
    Path(person.here("/etc/devin-sessions/environment")).write_text("\n".join(lines) + "\n", encoding="utf-8")


def service(name: str) -> str:
    """The command with which systemd would start it."""
    unit = units()[f"devin-sessions-{name}.service"]["Service"]
    return " ".join(
        (
            f"systemd-run --uid={unit['User']} --gid={unit['Group']}",
            f"--property=EnvironmentFile={unit['EnvironmentFile']} --property=UMask={unit['UMask']}",
            f"--working-directory={unit['WorkingDirectory']} {unit['ExecStart']}".replace("\\\n", " "),
        )
    )


@walks(INSTALL, FIRST_LOAD, ANALYSTS, BACKUP, UPGRADE)
def test_a_server_is_set_up_watched_backed_up_and_upgraded(person: Person, source: Sandbox) -> None:
    state = serve(person, source)
    snapshot = state / "published/devin_sessions.duckdb"
    first = ago(20)
    person.follows(INSTALL)
    kept_secret = Path(person.here("/etc/devin-sessions/environment"))
    assert (kept_secret.stat().st_mode & 0o777, kept_secret.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert state.stat().st_mode & 0o777 == 0o711
    write_settings(person, source)
    person.follows(FIRST_LOAD)
    check_loaded(snapshot, source, first, YESTERDAY)
    check_report(state / "published/report.html", source, YESTERDAY)
    assert (state / "dagster/workspace.yaml").read_bytes().endswith((person.clone / "workspace.yaml").read_bytes())
    assert not (person.clone / "data").exists()

    with (
        person.runs(service("daemon"), ended_by=signal.SIGTERM),
        person.runs(service("webserver"), ended_by=signal.SIGTERM) as webserver,
    ):
        check_ui(webserver, url_of(person, DEPLOYMENT), loaded=20)

    assert "Next run: " in person.outputs["as_service devin-sessions status"]

    def modes() -> set[tuple[bool, int]]:
        paths = [state / "published", *(state / "published").rglob("*")]
        return {(path.is_dir(), path.stat().st_mode & 0o7777) for path in paths}

    assert modes() == {(True, 0o700), (False, 0o600)}
    person.follows(ANALYSTS)
    assert modes() == {(True, 0o2750), (False, 0o640)}

    # A backup from the night before, and a lost warehouse.
    backup = Path(shutil.copy(snapshot, person.here("BACKUP")))
    backup.chmod(0o600)
    with duckdb.connect(str(backup)) as connection:
        for table_ in ("daily_sessions", "daily_totals"):
            connection.execute(f"delete from {table_} where day = ?", [YESTERDAY])
    warehouse = state / "warehouse.duckdb"
    warehouse.write_bytes(b"")
    person.follows(BACKUP)
    (damaged,) = state.glob("warehouse.duckdb.damaged-*")
    assert damaged.read_bytes() == b"", "restore keeps it"
    with duckdb.connect(str(state / "warehouse.duckdb.old"), read_only=True) as connection:
        restored = connection.execute("select count(*) from daily_totals").fetchone()
    assert restored == (20,), "restore had rebuilt it before the backup took its place"
    assert warehouse.stat().st_mode & 0o777 == 0o600
    before_the_upgrade = warehouse.read_bytes()
    person.follows(UPGRADE)
    assert (state.with_name("state.before") / "warehouse.duckdb").read_bytes() == before_the_upgrade
    assert "1 of 1 days loaded" in person.outputs["as_service devin-sessions backfill --missing"]
    check_loaded(snapshot, source, first, YESTERDAY)
    assert modes() == {(True, 0o2750), (False, 0o640)}, "a replaced file keeps its readers"


WHOLE_SERVER = Part(DEPLOYMENT, "The first load", but="as_service devin-sessions probe")
PSQL, PG_DUMP = Part(TOOLS, "The command line", only="psql .*"), Part(DEPLOYMENT, "Backup", only="pg_dump .*")


@walks(INSTALL, WHOLE_SERVER, PSQL, PG_DUMP)
def test_a_server_keeps_its_warehouse_on_postgresql(
    person: Person, source: Sandbox, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    serve(person, source)
    url = sa.make_url(postgresql.database())
    host, name = url.query["host"], url.database
    person.rewritten |= {
        "host=db.example.com dbname=sessions": f"host={host} dbname={name}",
        " sslmode=verify-full": "",  # the tests' psql is built without TLS
        "@db.example.com/sessions?": f"@/{name}?host={host}&",
        "sessions.dump sessions": f"{tmp_path}/sessions.dump {name}",
    }
    for program_ in ("psql", "pg_dump", "pg_restore"):
        (person.programs / program_).symlink_to(postgresql.server.bin_path / program_)
    person.types(f"export PGHOST={host} PGUSER={url.username}")
    person.types(f"psql --single-transaction --set ON_ERROR_STOP=1 --file docs/postgresql-roles.sql {name}")

    person.follows(INSTALL)
    (variables,) = (block for block in blocks(PROJECT / DEPLOYMENT, "dotenv") if block.startswith("WAREHOUSE_URL="))
    write_settings(person, source, **dict(line.split("=", 1) for line in variables.splitlines()))
    person.follows(WHOLE_SERVER, {"as_service devin-sessions backfill --missing": person.asks})
    assert "Next run: " in person.outputs["as_service devin-sessions status"]

    asked = "select sum(sessions_count) from daily_sessions; delete from daily_sessions;"
    (psql,) = PSQL.commands
    person.follows(PSQL, {psql.name: partial(person.types, answers=asked)})
    assert re.search(rf"^ +{truth(source, ago(20), days=20)}$", person.outputs[psql.name], re.MULTILINE)
    assert "permission denied for table daily_sessions" in person.outputs[psql.name]
    person.follows(PG_DUMP)
    assert "TABLE DATA public daily_sessions" in person.types(f"pg_restore --list {tmp_path}/sessions.dump")


# Changing the code


CONTRIBUTING = Part("CONTRIBUTING.md", "Set up, test, check")


@walks(CONTRIBUTING)
def test_generated_files_in_the_repository_are_up_to_date(person: Person) -> None:
    """`make docs` and `make format`, in a copy."""
    written = {path: path.read_bytes() for path in person.clone.rglob("*") if path.suffix in (".py", ".md", ".sql")}
    for name in ("data-dictionary.md", "settings.md"):
        (person.clone / "docs" / name).write_text("", encoding="utf-8")
    person.follows(CONTRIBUTING)
    assert [path for path, content in written.items() if path.read_bytes() != content] == []


# Nothing is left out


def test_every_command_on_every_page_is_typed_by_a_test_or_has_a_reason_why_not() -> None:
    typed = {command.name for part in FOLLOWED for command in part.commands}
    found = {command.name: f"{page}: {command.name}" for page in NAMES for command in COMMANDS[page]}
    assert len(found) > 60
    left_out = found.keys() - typed
    assert [found[name] for name in sorted(left_out) if not any(re.fullmatch(p, name) for p in NOT_RUN)] == []
    assert [pattern for pattern in NOT_RUN if not any(re.fullmatch(pattern, name) for name in left_out)] == []


def test_only_blocks_without_a_language_hold_commands() -> None:
    languages = {token["language"] for name in NAMES for token in TOKEN.finditer(text(PROJECT / name)) if token["code"]}
    assert languages == {"", "dotenv", "ini", "json", "mermaid", "psql", "python", "sql", "text", "yaml"}
