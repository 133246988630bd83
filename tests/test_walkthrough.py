"""The pages as a person walks through them: what they say to type is typed, in their order, into a shell in a copy of
the project, and what they promise is there afterwards. The last test holds that no command is left out."""

import csv
import grp
import html
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
import sqlalchemy as sa
import tenacity

from pipelines.settings import PROJECT
from resources.sandbox.server import Sandbox
from tests.conftest import PostgreSQL
from tests.test_docs import NAMES, blocks, environment_file, text, units

TODAY = datetime.now(UTC).date()
YESTERDAY = f"{TODAY - timedelta(days=1)}"

NOT_RUN = {
    r"make test": "it runs this",
    r"\.venv/bin/python -m pytest .*": "it runs tests such as this",
    r"make check|dg check defs": ".ci/run does, after the tests",
    r"make bench.*": "it measures for minutes; tests/test_bench_source.py tests its parts",
    r"make proof.*": "it plays faults for most of an hour; tests/test_faults.py plays a share",
    r"devin-sessions restore": "it is typed as the service's user",
    r"devin-sessions ui --port 3001": "as devin-sessions ui, where another program has the port",
    r"make demo PYTHON=.*": "as make demo, where Python has another name",
    r"make \.venv/ready .*": "it installs; .ci/run does so before any test",
    r"git clone .*|git pull": "there is nothing to get it from",
    r".*pip install .*": "it would change the installation that all tests share",
    r"useradd .*|groupadd .*|apt-get .*": "it would change the machine",
    r"systemctl .*|journalctl .*": "there may be no systemd; what the units start is started here",
    r"ssh .*": "there is no other machine",
    r"harlequin .*": "a program that must not be installed here",
    r"devin-sessions (backfill|demo|query)": "a name; with what belongs after it, it is typed",
    r".*(…|FIRST LAST).*": "a pattern, to be filled in",
}
"""The commands that no test types, by pattern, and why."""


# What the pages say to type


@dataclass(frozen=True)
class Command:
    """What stands in a block without a language, or between backquotes in a sentence."""

    heading: str
    name: str
    is_in_sentence: bool

    @property
    def typed(self) -> str:
        """The pages say what `devin-sessions` alone stands for."""
        return re.sub(r"^devin-sessions\b", ".venv/bin/devin-sessions", self.name)

    @property
    def is_left_out(self) -> bool:
        return any(re.fullmatch(pattern, self.name) for pattern in NOT_RUN)


TOKEN = re.compile(
    r"^ *```(?P<language>\w*)\n(?P<code>.*?)^ *```$|^#+ (?P<heading>[^\n]+)$|`(?P<span>[^`]+)`",
    re.MULTILINE | re.DOTALL,
)
STATEMENT = re.compile(r"^cat > \S+ <<'END'\n(?:.*\n)*?END$|^.*\S.*$", re.MULTILINE)
SPOKEN = {"as_service", "dagster", "devin-sessions", "dg", "make", "pg_dump", "pip", "ssh"}
"""Programs that sentences speak of, beside those of the blocks."""


def commands_of(page: str) -> list[Command]:
    """All of them, in the order of the page."""
    found, heading = [], ""
    for token in TOKEN.finditer(text(PROJECT / page)):
        heading = token["heading"] or heading
        if token["code"] and not token["language"]:
            in_one_line = re.sub(r" *\\\n *", " ", token["code"])
            code = re.sub(r"(?:^|\s+)# .*", "", in_one_line, flags=re.MULTILINE)
            for statement in STATEMENT.findall(code):
                found.append(Command(heading, re.sub(r"^\.venv/bin/(?=devin-)", "", statement.strip()), False))
        elif token["span"]:
            found.append(Command(heading, re.sub(r"^\.venv/bin/(?=devin-)", "", " ".join(token["span"].split())), True))
    return found


def program(command: Command) -> str:
    return re.split(r"[\s(]", re.sub(r"^([A-Z_]+=\S* )*", "", command.name))[0]


PROGRAMS = SPOKEN | {program(c) for page in NAMES for c in commands_of(page) if not c.is_in_sentence}
COMMANDS = {
    page: [c for c in commands_of(page) if not c.is_in_sentence or (program(c) in PROGRAMS and " " in c.name)]
    for page in NAMES
}


@dataclass(frozen=True)
class Part:
    """What stands under one heading, up to the next, or of that only some commands, or all but some."""

    page: str
    heading: str
    only: str = ".*"
    but: str = ""

    @property
    def commands(self) -> list[Command]:
        found = [
            c for c in COMMANDS[self.page] if c.heading == self.heading and re.fullmatch(self.only, c.name, re.DOTALL)
        ]
        left = [c for c in found if not re.fullmatch(self.but, c.name)]
        assert left and (not self.but or left != found), f"{self} is not as it was"
        return [c for c in left if not c.is_left_out]


FOLLOWED: list[Part] = []
Test = Callable[..., None]


def walks(*parts: Part) -> Callable[[Test], Test]:
    """Says which parts of the pages a test follows. It fails if it leaves out one."""

    def with_parts(test: Test) -> Test:
        FOLLOWED.extend(parts)
        test.parts = parts  # type: ignore[attr-defined]  # `person` reads it
        return test

    return with_parts


# The person and the machine


def copied_project(folder: Path, ports: Mapping[str, str]) -> None:
    """What git would clone, what is new included, as it is after the first `make`. Other ports than the usual ones, in
    the one module that names them: those may be taken."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    module = folder / "pipelines" / "command" / "cli.py"
    code = module.read_text(encoding="utf-8")
    for usual, free in ports.items():
        assert code.count(usual) == 1
        code = code.replace(usual, free)
    module.write_text(code, encoding="utf-8")
    # Links in a folder of its own, so that whatever is done to it, even an installation, does nothing to the real one.
    (folder / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        (folder / ".venv" / entry.name).symlink_to(entry)
    for stamp in ("installed", "ready"):
        (folder / ".venv" / stamp).unlink(missing_ok=True)
        (folder / ".venv" / stamp).touch()


def free_ports(*usual: str) -> dict[str, str]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in usual]
        return dict(zip(usual, (str(one.getsockname()[1]) for one in sockets), strict=True))


def patiently(**options: Any) -> tenacity.Retrying:
    return tenacity.Retrying(
        wait=tenacity.wait_fixed(0.1), stop=tenacity.stop_after_delay(240), reraise=True, **options
    )


@dataclass
class Running:
    """A command that goes on until it is ended."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, is_so: Callable[[], Any]) -> Any:
        """What it answers once that is something, as long as the command runs."""

        def ask() -> Any:
            assert self.process.poll() is None, self.said
            return is_so()

        return patiently(
            retry=tenacity.retry_if_exception_type(httpx.TransportError)
            | tenacity.retry_if_result(lambda answer: not answer)
        )(ask)


@dataclass
class Person:
    """Has one shell, an empty home and the project's folder, and reads what is answered."""

    folder: Path
    parts: list[Part]
    ports: dict[str, str] = field(default_factory=lambda: free_ports("3000", "8787"))
    rewritten: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clone = self.folder / "devin-session-metrics"
        self.programs = self.folder / "programs"
        self.home = self.folder / "home"
        for folder in (self.programs, self.home):
            folder.mkdir()
        copied_project(self.clone, self.ports)
        self.rewritten |= self.ports
        self.environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(self.clone),
        }
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def here(self, line: str) -> str:
        """The line with the folders, ports and names of this test."""
        for usual, own in self.rewritten.items():
            line = line.replace(usual, own)
        assert not re.search(r"/(opt|etc|var/lib)/devin", line), "a test stays in its own folders"
        return line

    def types(self, line: str, *, code: int = 0, answers: str = "") -> str:
        """What is said to a line, which must end with this exit code. `answers` is what is typed into the program."""
        assert self.shell.stdin and self.shell.stdout
        end = "the-end-of-the-line"
        typed = f"eval {shlex.quote(self.here(line))} <<'{end}'\n{answers}\n{end}\nprintf '\\n{end} %s\\n' $?\n"
        too_long = threading.Timer(240, os.killpg, (self.shell.pid, signal.SIGKILL))
        too_long.start()
        said, ended_with = [], None
        self.shell.stdin.write(typed)
        self.shell.stdin.flush()
        for answer in self.shell.stdout:
            if answer.startswith(end):
                ended_with = int(answer.split()[1])
                break
            said.append(answer)
        too_long.cancel()
        shown = "".join(said)
        assert ended_with == code, f"{line}\nended with {ended_with}:\n{shown}"
        assert "Traceback" not in shown, shown
        return shown

    @contextmanager
    def runs(self, line: str, ended_by: signal.Signals = signal.SIGINT) -> Iterator[Running]:
        """A command in a second terminal, ended by Ctrl-C or another signal when the block ends."""
        log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", self.here(line)],
                cwd=self.clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(process, log)
        try:
            yield running
            os.killpg(process.pid, ended_by)
            process.wait(120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert "Traceback" not in running.said, running.said
        patiently(retry=tenacity.retry_if_result(bool))(self.is_served)

    def is_served(self) -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", int(self.ports["3000"]))) == 0

    def follows(self, part: Part, unusual: Mapping[str, Callable[[str], object]] | None = None) -> None:
        """Types what the part says; what is in a sentence only if it was not typed before.

        `unusual` says what to do with a command instead of typing it and going on.
        """
        todo = dict(unusual or {})
        for command in part.commands:
            if command.is_in_sentence and command.name in self.said:
                continue
            how = todo.pop(command.name, self.types)
            self.said[command.name] = str(how(command.typed))
        assert not todo, f"not under {part.heading}: {todo}"
        self.parts.remove(part)

    def sets(self, path: Path, **variables: str) -> None:
        """Edits a file of variables."""
        lines = path.read_text(encoding="utf-8").splitlines()
        for name, value in variables.items():
            lines = [line for line in lines if not line.startswith(f"{name}=")] + [f"{name}={value}"]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def leaves(self) -> None:
        assert self.shell.stdin and self.shell.stdout
        self.shell.stdin.close()
        self.shell.wait(60)
        self.shell.stdout.close()


@pytest.fixture
def person(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Person]:
    parts = list(request.function.parts)
    someone = Person(tmp_path, parts)
    yield someone
    someone.leaves()
    assert {entry.name for entry in someone.home.iterdir()} <= {".cache"}, "nothing is left in anybody's home"
    assert parts == [] or request.session.testsfailed, "what the test says it follows, it does"


@pytest.fixture
def source() -> Iterator[Sandbox]:
    with Sandbox(organizations=2) as source:
        yield source


# What is promised


def table(said: str) -> list[dict[str, str]]:
    """The rows of the first table in what was said."""
    lines = [re.split("[│┃]", line.strip())[1:-1] for line in said.splitlines() if line.startswith(("│", "┃"))]
    head, *rows = [[cell.strip().replace(",", "") for cell in line] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


def days(first: str, last: str) -> list[date]:
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [start + timedelta(n) for n in range((end - start).days + 1)]


def truth(source: Sandbox, day: date | str, *org_ids: str, days: int = 1) -> int:
    start = datetime.combine(date.fromisoformat(f"{day}"), time(), UTC)
    return source.truth(start, start + timedelta(days), org_ids or None)


def check_report(report: Path, source: Sandbox, last: str) -> None:
    """It names every organization that had sessions in the last week that is loaded."""
    page = html.unescape(report.read_text(encoding="utf-8"))
    week = date.fromisoformat(last) - timedelta(days=6)
    names = [o.org_name for o in source.organizations if truth(source, week, o.org_id, days=7)]
    assert names
    assert [name for name in names if name not in page] == []


def check_loaded(snapshot: Path, source: Sandbox, first: str, last: str) -> None:
    """These days and no others are published, each organization as the source has it."""
    with duckdb.connect(str(snapshot), read_only=True) as connection:
        found = connection.sql("select day, org_id, sessions_count from daily_sessions").fetchall()
    ids = [o.org_id for o in source.organizations]
    assert {(day, id_): count for day, id_, count in found} == {
        (day, id_): truth(source, day, id_) for day in days(first, last) for id_ in ids
    }


QUESTION = """{
    schedulesOrError(
        repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "devin_session_metrics"}
    ) { ... on Schedules { results { name scheduleState { status } } } }
    instance { daemonHealth { allDaemonStatuses { daemonType healthy } } }
    assetNodes { assetKey { path } partitionStats { numMaterialized } }
}"""


def check_ui(running: Running, url: str, loaded: int) -> None:
    """It is served, shows so many days as loaded, its schedule is on, and the daemon that runs it is well."""
    with httpx.Client(base_url=url, timeout=60) as client:
        running.wait_for(lambda: client.get("/server_info").is_success)

        def answered() -> Any:
            data = client.post("/graphql", json={"query": QUESTION}).json()["data"]
            daemons = {d["daemonType"]: d["healthy"] for d in data["instance"]["daemonHealth"]["allDaemonStatuses"]}
            return daemons["SCHEDULER"] and data

        data = running.wait_for(answered)
    (schedule,) = data["schedulesOrError"]["results"]
    assert schedule == {"name": "daily_refresh_schedule", "scheduleState": {"status": "RUNNING"}}
    nodes = {node["assetKey"]["path"][-1]: node["partitionStats"] for node in data["assetNodes"]}
    assert nodes["daily_sessions"] == {"numMaterialized": loaded}
    assert {"weekly_sessions", "monthly_sessions", "enterprise_sessions"} <= nodes.keys()


def url_of(person: Person, page: str) -> str:
    """Where the page says that the UI is."""
    (url,) = set(re.findall(r"http://127\.0\.0\.1:\d+", text(PROJECT / page)))
    return person.here(url)


# The first hour

FIRST_HOUR = "docs/first-hour.md"


@walks(Part(FIRST_HOUR, "1. See it work, without a key"))
def test_a_clone_becomes_a_report_of_sandbox_data_without_a_key(person: Person) -> None:
    (part,) = person.parts
    demo = Sandbox(organizations=12)

    def look(line: str) -> None:
        with person.runs(line) as running:
            check_ui(running, url_of(person, FIRST_HOUR), loaded=90)

    person.follows(part, {"devin-sessions demo --ui": look})
    assert "90 of 90" in person.said["make demo"]
    check_report(person.clone / "data/demo/published/report.html", demo, YESTERDAY)
    recent, verdicts = (table(said) for name, said in person.said.items() if " query " in name)
    assert len(recent) == 7
    assert {row["day"]: row["sessions_count"] for row in recent} == {
        row["day"]: str(truth(demo, row["day"])) for row in recent
    }
    assert verdicts == [{"verdict": "proven", "days": "90"}]
    (sql,) = blocks(PROJECT / "README.md", "sql")
    shown = table(
        person.types(f'WAREHOUSE_URL=duckdb:///data/demo/warehouse.duckdb .venv/bin/devin-sessions query "{sql}"')
    )
    monday = TODAY - timedelta(days=TODAY.weekday() + 7)
    counts = {o.org_name: truth(demo, monday, o.org_id, days=7) for o in demo.organizations}
    largest = sorted(counts, key=lambda name: -counts[name])[:5]
    assert [(row["week"], row["org_name"], row["sessions_count"]) for row in shown] == [
        (f"{monday}", name.replace(",", ""), f"{counts[name]}") for name in largest
    ]
    assert [entry.name for entry in (person.clone / "data").iterdir()] == ["demo"], "nothing else is touched"


# From a key to a nightly schedule


KEY, PROBE = Part(FIRST_HOUR, "2. The key"), Part(FIRST_HOUR, "3. Look at the source before you load it")
HISTORY, NUMBERS = Part(FIRST_HOUR, "4. A first day, then history"), Part(FIRST_HOUR, "5. Look at your numbers")
NIGHTLY = Part(FIRST_HOUR, "6. Every night", but="make dev")


@walks(KEY, PROBE, HISTORY, NUMBERS, NIGHTLY)
def test_a_key_becomes_a_nightly_schedule(person: Person, source: Sandbox) -> None:
    variables, published = person.clone / ".env", person.clone / "data/published"
    person.follows(KEY)
    assert variables.stat().st_mode & 0o777 == 0o600
    assert "DEVIN_API_KEY=\n" in variables.read_text(encoding="utf-8")
    first = "2025-06-01"
    person.sets(variables, DEVIN_API_KEY=source.api_key, DEVIN_API_URL=source.url, DEVIN_START_DATE=first)

    person.follows(PROBE)
    for said in (person.said["devin-sessions probe"], person.said["devin-sessions probe --until 2025-06-30"]):
        assert {row["verdict"] for row in table(said)} <= {"good", "note", ""}
    assert not published.exists()

    def look_before_all_is_loaded(line: str) -> str:
        check_loaded(published / "devin_sessions.duckdb", source, "2025-06-02", "2025-06-08")
        return person.types(line, code=1)

    person.follows(HISTORY, {"devin-sessions status": look_before_all_is_loaded})
    loaded = len(days(first, YESTERDAY))
    assert f"Missing: 2025-06-01, 2025-06-09…{YESTERDAY}" in person.said["devin-sessions status"]
    assert f"{loaded - 7} of {loaded - 7} days loaded" in person.said["devin-sessions backfill --missing"]
    check_loaded(published / "devin_sessions.duckdb", source, first, YESTERDAY)

    person.follows(NUMBERS)
    proven, weeks = (table(said) for name, said in person.said.items() if " query " in name)
    assert [row["day"] for row in proven] == [f"{day}" for day in reversed(days(first, YESTERDAY)[-14:])]
    assert [row["control_total"] for row in proven] == [str(truth(source, row["day"])) for row in proven]
    assert {row["verdict"] for row in proven} == {"proven"}
    whole = [row for row in weeks if row["is_complete"] == "true"]
    assert len(whole) > len(source.organizations)
    assert [row["sessions_count"] for row in whole] == [
        str(truth(source, row["week"], row["org_id"], days=7)) for row in whole
    ]
    check_report(published / "report.html", source, YESTERDAY)

    def look(line: str) -> None:
        with person.runs(line) as running:
            check_ui(running, url_of(person, FIRST_HOUR), loaded)

    person.follows(NIGHTLY, {"devin-sessions ui": look})
    assert "Next run: " in person.types(".venv/bin/devin-sessions status")


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
    assert all(f"make {target}" in person.said["make help"] for target in ("demo", "test", "dev", "check"))

    def set_key(line: str) -> None:
        person.types(line)
        person.sets(person.clone / ".env", DEVIN_API_KEY=source.api_key, DEVIN_API_URL=source.url)

    def look(line: str) -> None:
        with person.runs(line) as running:
            check_ui(running, url_of(person, README), loaded=365)

    person.follows(
        REAL_USE,
        {"cp .env.example .env": set_key, "devin-sessions status": partial(person.types, code=1), "make dev": look},
    )
    assert "365 of 365 days loaded" in person.said["devin-sessions backfill 2025-01-01 2025-12-31"]
    assert "Missing: 2026-01-01…" in person.said["devin-sessions status"]
    check_loaded(person.clone / snapshot, source, "2025-01-01", "2025-12-31")
    check_report(published / "report.html", source, "2025-12-31")

    (person.programs / "duckdb").symlink_to(Path(sys.prefix) / "bin" / "duckdb")
    asked = "select count(*) from daily_totals; delete from daily_totals;"
    shell = f"duckdb -readonly {snapshot}"
    person.follows(IN_SQL, {shell: partial(person.types, answers=asked, code=1)})
    assert "365" in person.said[shell]
    assert "attached in read-only mode" in person.said[shell]
    (recent,) = (table(said) for name, said in person.said.items() if "limit 14" in name)
    assert [(row["day"], row["sessions_count"]) for row in recent] == [
        (f"{day}", str(truth(source, day))) for day in reversed(days("2025-12-18", "2025-12-31"))
    ]
    with (person.clone / "daily_sessions.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 365 * len(source.organizations)
    whole_year = truth(source, "2025-01-01", days=365)
    assert sum(int(cell["sessions_count"]) for cell in cells) == whole_year
    (of_parquet,) = (said for name, said in person.said.items() if name.startswith("duckdb -c"))
    assert re.search(rf" {whole_year} ", of_parquet)

    person.follows(SPREADSHEETS)
    with (person.clone / "monthly_sessions.csv").open(encoding="utf-8-sig") as file:
        assert sum(int(row["sessions_count"]) for row in csv.DictReader(file)) == whole_year
    person.follows(WRONG_USE)
    assert "Nothing to do" in person.said["devin-sessions backfill 2025-01-01 2025-01-31"]

    def use_sandbox(line: str) -> None:
        with person.runs(line) as running:
            running.wait_for(lambda: "DAGSTER_HOME" in running.said)
            for export in re.findall(r"^  (export .*)$", running.said, re.MULTILINE):
                person.types(export)
            person.types(".venv/bin/devin-sessions probe")
        assert re.search(r"Stopped after [1-9]\d* requests\.", running.said)

    person.follows(WITHOUT_A_KEY, {"devin-sessions sandbox": use_sandbox})


# Deployment


DEPLOYMENT = "docs/deployment.md"
INSTALL, FIRST_LOAD = Part(DEPLOYMENT, "Install"), Part(DEPLOYMENT, "The first load")
ANALYSTS, UPGRADE = Part(DEPLOYMENT, "Analysts"), Part(DEPLOYMENT, "Upgrade")
BACKUP = Part(DEPLOYMENT, "Backup", but="pg_dump .*")

SYSTEMD_RUN = """#!/bin/bash
# As systemd-run and systemd's units: the environment is the file's alone, and there is no home.
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
    """Makes the person's machine one where the project can be deployed without being root. What is kept is in the
    folder that is returned."""
    state, settings, backup = (person.folder / name for name in ("state", "settings", "backup"))
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
        # A key and a start for the source of this test.
        "apk_user_…": source.api_key,
        "DEVIN_START_DATE=2025-01-01": f"DEVIN_START_DATE={TODAY - timedelta(days=20)}",
    }
    stand_in = person.programs / "systemd-run"
    stand_in.write_text(SYSTEMD_RUN, encoding="utf-8")
    stand_in.chmod(0o755)
    return state


def write_settings(person: Person, source: Sandbox, **changed: str) -> None:
    """What the page says to put into the environment file, and where the source is."""
    variables = environment_file() | {"DEVIN_API_URL": source.url} | changed
    lines = [person.here(f"{name}={value}") for name, value in variables.items()]
    Path(person.here("/etc/devin-sessions/environment")).write_text("\n".join(lines) + "\n", encoding="utf-8")


def service(name: str) -> str:
    """How systemd would start it."""
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
    first = f"{TODAY - timedelta(days=20)}"
    person.follows(INSTALL)
    kept_secret = Path(person.here("/etc/devin-sessions/environment"))
    assert (kept_secret.stat().st_mode & 0o777, kept_secret.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert state.stat().st_mode & 0o777 == 0o711
    write_settings(person, source)
    person.follows(FIRST_LOAD)
    check_loaded(snapshot, source, first, YESTERDAY)
    check_report(state / "published/report.html", source, YESTERDAY)
    assert (state / "dagster/dagster.yaml").resolve() == person.clone / "dagster.yaml"
    assert not (person.clone / "data").exists()

    with (
        person.runs(service("daemon"), ended_by=signal.SIGTERM),
        person.runs(service("webserver"), ended_by=signal.SIGTERM) as webserver,
    ):
        check_ui(webserver, url_of(person, DEPLOYMENT), loaded=20)

    assert "Next run: " in person.types("as_service devin-sessions status")

    def modes() -> set[tuple[bool, int]]:
        paths = [state / "published", *(state / "published").rglob("*")]
        return {(path.is_dir(), path.stat().st_mode & 0o7777) for path in paths}

    assert modes() == {(True, 0o700), (False, 0o600)}
    person.follows(ANALYSTS)
    assert modes() == {(True, 0o2750), (False, 0o640)}

    # The backup of the night before, and a warehouse that was lost.
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
    assert restored == (20,), "before the backup took its place, restore had built it again"
    assert warehouse.stat().st_mode & 0o777 == 0o600
    assert "1 of 1 days loaded" in person.types("as_service devin-sessions backfill --missing")
    check_loaded(snapshot, source, first, YESTERDAY)
    assert modes() == {(True, 0o2750), (False, 0o640)}, "what replaces a file is for the same readers"
    person.follows(UPGRADE)
    assert "Nothing to do" in person.said["as_service devin-sessions backfill --missing"]
    assert (state.with_name("state.before") / "warehouse.duckdb").read_bytes() == warehouse.read_bytes()


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
        " sslmode=verify-full": "",  # the tests' psql is made without TLS
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
    person.follows(WHOLE_SERVER)
    assert "Next run: " in person.said["as_service devin-sessions status"]

    asked = "select sum(sessions_count) from daily_sessions; delete from daily_sessions;"
    (psql,) = PSQL.commands
    person.follows(PSQL, {psql.name: partial(person.types, answers=asked)})
    first = TODAY - timedelta(days=20)
    assert re.search(rf"^ +{truth(source, first, days=20)}$", person.said[psql.name], re.MULTILINE)
    assert "permission denied for table daily_sessions" in person.said[psql.name]
    person.follows(PG_DUMP)
    assert "TABLE DATA public daily_sessions" in person.types(f"pg_restore --list {tmp_path}/sessions.dump")


# Changing the code


CONTRIBUTING = Part("CONTRIBUTING.md", "Set up, test, check")


@walks(CONTRIBUTING)
def test_what_make_writes_is_as_it_is_in_the_repository(person: Person) -> None:
    """`make docs` and `make format`, in a copy."""
    written = {path: path.read_bytes() for path in person.clone.rglob("*") if path.suffix in (".py", ".md", ".sql")}
    for name in ("data-dictionary.md", "settings.md"):
        (person.clone / "docs" / name).write_text("", encoding="utf-8")
    person.follows(CONTRIBUTING)
    assert [path for path, content in written.items() if path.read_bytes() != content] == []


# What holds this up


def test_every_command_of_every_page_is_typed_by_a_test_or_says_why_not() -> None:
    typed = {command.name for part in FOLLOWED for command in part.commands}
    found = {command.name: f"{page}: {command.name}" for page in NAMES for command in COMMANDS[page]}
    assert len(found) > 60
    left_out = found.keys() - typed
    assert [found[name] for name in sorted(left_out) if not any(re.fullmatch(p, name) for p in NOT_RUN)] == []
    assert [pattern for pattern in NOT_RUN if not any(re.fullmatch(pattern, name) for name in left_out)] == []


def test_a_block_without_a_language_is_to_be_typed_and_every_other_is_no_commands() -> None:
    languages = {token["language"] for name in NAMES for token in TOKEN.finditer(text(PROJECT / name)) if token["code"]}
    assert languages == {"", "dotenv", "ini", "json", "mermaid", "psql", "sql", "text", "yaml"}
