"""The documentation is true: queries run, commands parse, links lead somewhere, messages are in the code."""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from unittest.mock import patch

import click
import dagster as dg
import pytest
import typer
from dagster._daemon.cli import run_command as dagster_daemon
from dagster_shared.yaml_utils import safe_load_yaml
from dagster_webserver.cli import dagster_webserver

from pipelines.command import cli
from pipelines.command.dagster_home import dagster_home
from pipelines.home import PROJECT
from pipelines.loading.changed_settings import Incompatible, moved_days
from pipelines.partitions import as_days, daily_partitions
from pipelines.settings import Settings
from resources.sandbox.server import Sandbox
from tests.support.loads import fill, fill_all_tables
from tests.support.messages import sentences
from tests.support.pages import DEPLOYMENT, DOCS, NAMES, PAGES, blocks, environment_file, parsed, text, units
from tests.support.warehouse import wide_integers
from tests.support.world import World

of_each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)
INSTALLED = "/opt/devin-session-metrics"
STATE = "/var/lib/devin-sessions"


def shell_lines(page: Path) -> list[str]:
    """What can be typed into a shell: the lines of blocks without a language, and what is between backquotes."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text(page), flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks(page, "") for line in block.replace("\\\n", " ").splitlines()]
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """The arguments of each call of `program`, without what the shell itself interprets."""
    for line in shell_lines(page):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe in a message, say
            continue
        while words and (re.fullmatch(r"[A-Z_]+=.*", words[0]) or words[0] == "as_service"):
            words.pop(0)
        if words and Path(words[0]).name == program:
            ends = [n for n, word in enumerate(words) if word in (">", "|", "&&", ";")]
            yield words[1 : min(ends, default=len(words))]


def table(page: Path, heading: str) -> list[list[str]]:
    """The rows of the tables under a heading, without the header rows."""
    section = re.split(r"^#+ ", text(page).split(f"# {heading}\n", 1)[1], flags=re.MULTILINE)[0]
    rows = [re.split(r" \| ", line.strip("| ")) for line in section.splitlines() if line.startswith("|")]
    heads = [n - 1 for n, row in enumerate(rows) if set(row[0]) <= {"-", "|"}]
    return [row for n, row in enumerate(rows) if n not in heads and n - 1 not in heads]


# Commands, targets, settings, links


def test_every_command_on_the_pages_exists_and_every_command_is_shown() -> None:
    group = typer.main.get_command(cli.app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    known = group.commands
    shown = Counter[str]()
    for page in PAGES:
        for words in commands(page, "devin-sessions"):
            if words and words[0].startswith("--"):
                assert words[0] in {name for parameter in group.params for name in parameter.opts}, page.name
            elif words:
                assert words[0] in known, f"{page.name}: devin-sessions {words[0]}"
                shown[words[0]] += 1
                if len(words) == 1:  # only its name, in a sentence
                    continue
                try:
                    known[words[0]].make_context(words[0], words[1:])  # parses and checks, runs nothing
                except Exception as error:
                    pytest.fail(f"{page.name}: devin-sessions {shlex.join(words)}: {error}")
    assert set(shown) == set(known)


def test_every_make_target_on_the_pages_exists() -> None:
    makefile = text(PROJECT / "Makefile")
    targets = set(re.findall(r"^([\w./-]+):(?!=)", makefile, re.MULTILINE))
    shown = set[str]()
    for page in PAGES:
        for words in commands(page, "make"):
            for word in words:
                name, is_variable, _ = word.partition("=")
                assert f"$({name})" in makefile if is_variable else word in targets, f"{page.name}: make {word}"
                shown.add(name)
    assert {"demo", "test", "check", "dev", "install", "PYTHON"} <= shown


@pytest.fixture
def for_dagster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables that a command sets for Dagster unless they are set, and the home that it was given."""
    home = {"DAGSTER_HOME": str(tmp_path / "dagster")}
    others = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_")}
    with patch.dict(os.environ, others | home, clear=True):
        assert dagster_home() == tmp_path / "dagster"
        yield {name: value for name, value in os.environ.items() if name.startswith("DAGSTER_")}


@of_each_page
def test_every_variable_on_a_page_is_a_setting(page: Path, for_dagster: dict[str, str]) -> None:
    settings = {name.upper() for name in Settings.model_fields}
    named = set(re.findall(r"\b(?:DEVIN_[A-Z_]+|WAREHOUSE_URL)\b", text(page)))
    assert named <= settings
    for name in set(re.findall(r"\bDAGSTER_[A-Z_]+\b", text(page))):
        assert name in for_dagster or f"env: {name}" in text(page), name


@of_each_page
def test_every_value_that_is_shown_for_a_setting_is_allowed(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = re.findall(r"\b(DEVIN_[A-Z_]+|WAREHOUSE_URL)=([^\s`|]+)", text(page))
    for name, value in shown:
        for other in Settings.model_fields:
            monkeypatch.setenv(other.upper(), "")
        if name == "DEVIN_SCHEMA":
            monkeypatch.setenv("WAREHOUSE_URL", "postgresql+psycopg://127.0.0.1/sessions")
        monkeypatch.setenv(name, value.rstrip(".,;)").replace("…", "x").replace("$PWD", str(PROJECT)))
        Settings.load()


def anchors(page: Path) -> set[str]:
    """The anchors that links into a page can use: its headings, as the usual renderers write them."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@of_each_page
def test_every_link_leads_to_an_existing_file_and_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        to = page.parent / name if name else page
        assert to.is_file(), target
        assert not anchor or anchor in anchors(to), target


@of_each_page
def test_every_code_file_on_a_page_exists(page: Path) -> None:
    named = re.findall(r"`((?:pipelines|resources|warehouse|tests)/[a-z_/]+(?:\.\w+)?)`", text(page))
    assert [name for name in named if not (PROJECT / name).exists()] == []


@pytest.fixture
def packages() -> dict[str, set[str]]:
    """The modules of each package of the product, by its directory."""
    found = [path for top in ("pipelines", "resources", "warehouse") for path in (PROJECT / top).rglob("*.py")]
    return {
        f"{init.parent.relative_to(PROJECT)}/": {path.name for path in found if path.parent == init.parent}
        - {init.name}
        for init in found
        if init.name == "__init__.py"
    }


def test_the_map_lists_every_package(packages: dict[str, set[str]]) -> None:
    rows = table(PROJECT / "CONTRIBUTING.md", "Where to find what")
    assert {row[0].strip("`") for row in rows} == {*packages, "tests/"}


def test_the_map_lists_every_module_of_each_package_once_and_no_other(packages: dict[str, set[str]]) -> None:
    assert sum(map(len, packages.values())) > 80
    for package, modules in packages.items():
        rows = table(PROJECT / "CONTRIBUTING.md", f"`{package}`")
        listed = [name for row in rows for name in re.findall(r"`([^`]+\.py)`", row[0])]
        assert sorted(listed) == sorted(modules), package
        assert all(row[1] for row in rows), package


def test_the_readme_links_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^):#]+)\)", text(PROJECT / "README.md")))
    assert linked >= {name for name in NAMES if name != "README.md"}


def test_the_readme_shows_the_demos_result_for_its_date() -> None:
    page = PROJECT / "README.md"
    (day,) = re.findall(r"On the demo of (\d{4}-\d\d-\d\d)", text(page))
    since = date.fromisoformat(day)
    monday = since - timedelta(days=since.weekday() + 7)
    start = datetime(monday.year, monday.month, monday.day, tzinfo=UTC)
    demo = Sandbox(organizations=12)
    counts = {o.org_name: demo.truth(start, start + timedelta(days=7), [o.org_id]) for o in demo.organizations}
    largest = sorted(counts, key=lambda name: -counts[name])[:5]
    (shown,) = blocks(page, "text")
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if line[0] == "│"]
    assert rows == [[f"{monday}", name, f"{counts[name]:,}"] for name in largest]


@of_each_page
def test_no_line_is_too_wide_and_no_path_of_a_machine_is_shown(page: Path) -> None:
    if page.name not in ("README.md", "data-dictionary.md"):
        wide = [line for line in text(page).splitlines() if len(line) > 120 and not line.startswith("|")]
        assert wide == []
    absolute = set(re.findall(r"(?<![\w./:<>(){}*~-])/(\w+)", text(page)))
    assert absolute <= {"opt", "etc", "var", "usr", "dev", "bin", "nonexistent", "v2", "data"}, (
        "only a server's, the image's or the API's"
    )
    # Nor where the line above does not look, such as in an address.
    assert not re.search(r"/root/|/tmp/|/home/\w", text(page))


# Messages


def test_every_message_in_troubleshooting_is_in_the_code() -> None:
    page = DOCS / "troubleshooting.md"
    parts = ("Settings and use", "The API", "Loading", "The warehouse", "Publishing")
    rows = [row for part in parts for row in table(page, part)]
    assert len(rows) > 60
    named = [tuple(re.findall(r"`([^`]+)`", row[0])) for row in rows]
    assert all(len(row) == 3 and all(row) for row in rows)
    assert [message for message, times in Counter(named).items() if times > 1] == []
    for fragments in named:
        assert len("".join(fragments)) >= 10, fragments
        in_order = re.compile(".*".join(map(re.escape, fragments)))
        assert any(in_order.search(sentence) for sentence in sentences()), f"no message has {fragments}"


def test_the_pages_explain_exactly_the_existing_checks_and_verdicts(world: World) -> None:
    page = DOCS / "numbers.md"
    world.configure(devin_user_ids="discover")
    keys = world.definitions.resolve_asset_graph().asset_check_keys
    of_organizations = {key.name for key in keys if key.asset_key == dg.AssetKey("daily_sessions")}
    assert {row[0].strip("`") for row in table(page, "What each check says")} == of_organizations
    of_users = {key.name for key in keys if key.asset_key == dg.AssetKey("user_daily_sessions")}
    assert {name for name in of_users - of_organizations if f"`{name}`" not in text(page)} == set()
    view = text(PROJECT / "warehouse" / "sql" / "reconciliation.sql")
    assert {row[0] for row in table(page, "The proof of a day")} == set(re.findall(r"(?:then|else) '(.+)'", view))


# Days


@pytest.fixture
def in_berlin(each_world: World) -> World:
    each_world.configure(devin_timezone="Europe/Berlin", devin_start_date="2025-03-25")
    return each_world


def test_days_without_24_hours_are_as_the_page_says(in_berlin: World) -> None:
    rows = table(DOCS / "day-boundary.md", "When the clocks change")
    for key, start, end, hours in rows:
        (day,) = as_days(daily_partitions(in_berlin.settings), [key])
        assert (f"{day.start:%Y-%m-%d %H:%M}", f"{day.end:%Y-%m-%d %H:%M}") == (start, end)
        assert day.end - day.start == timedelta(hours=int(hours))
    assert {row[3] for row in rows} == {"23", "24", "25"}
    fill(in_berlin, "2025-03-29", "2025-03-31")
    (sql,) = blocks(DOCS / "day-boundary.md", "sql")
    windows = datetime(2025, 3, 29, 23, tzinfo=UTC), datetime(2025, 3, 30, 22, tzinfo=UTC)
    assert in_berlin.rows(sql) == [(date(2025, 3, 30), *windows)]


def test_other_days_are_refused_with_the_message_on_the_page(world: World) -> None:
    fill(world, "2025-04-01", "2025-04-01")
    world.configure(devin_timezone="Europe/Berlin")
    (quoted,) = re.findall(r"^> (.+\n> .+)\n", text(DOCS / "day-boundary.md"), re.MULTILINE)
    with pytest.raises(Incompatible) as refused, world.database.transaction(read_only=True) as connection:
        moved_days(connection, world.settings)
    assert str(refused.value).startswith(" ".join(quoted.replace("\n> ", " ").removesuffix("…").split()))


# The cookbook


COOKBOOK = {block.splitlines()[0].removeprefix("-- "): block for block in blocks(DOCS / "cookbook.md", "sql")}


def test_every_cookbook_query_has_its_own_title() -> None:
    found = blocks(DOCS / "cookbook.md", "sql")
    assert all(block.startswith("-- ") and block.rstrip().endswith(";") for block in found)
    assert len(found) == len(COOKBOOK) == 17
    assert "Seventeen questions" in text(DOCS / "cookbook.md")


def test_every_query_on_the_pages_returns_rows_on_both_databases(each_world: World) -> None:
    first, last = date(2025, 4, 1), date(2025, 6, 9)
    *_, dormant = each_world.source.organizations
    each_world.source.add_sessions(dormant.org_id, datetime(2025, 4, 2, 12, tzinfo=UTC))
    each_world.source.add_sessions("org-not-listed", datetime(2025, 5, 20, 12, tzinfo=UTC), count=300)
    fill_all_tables(each_world, f"{first}", f"{last}")

    answers = {title: each_world.rows(sql) for title, sql in COOKBOOK.items()}
    assert [title for title, rows in answers.items() if not rows] == []
    assert {title: wide for title, sql in COOKBOOK.items() if (wide := wide_integers(each_world.database, sql))} == {}
    for page in PAGES:
        for words in commands(page, "devin-sessions"):
            if words[:1] == ["query"] and len(words) > 1 and "…" not in words[-1]:
                assert each_world.rows(words[-1]), words[-1]

    truth = each_world.truth(f"{first}", f"{last}")
    org_ids = [o.org_id for o in each_world.source.organizations]
    names = {o.org_id: o.org_name for o in each_world.source.organizations}
    created = {o.org_id: o.created_at for o in each_world.source.organizations}

    def sessions(org_id: str, begin: date, end: date) -> int:
        return sum(n for (day, of), n in truth.items() if of == org_id and begin <= day <= end)

    def rows(beginning: str) -> list[tuple[object, ...]]:
        (found,) = (rows for title, rows in answers.items() if title.startswith(beginning))
        # PostgreSQL rounds to numeric, DuckDB to double.
        return [tuple(float(v) if isinstance(v, Decimal) else v for v in row) for row in found]

    in_june = {o: sessions(o, date(2025, 6, 1), last) for o in org_ids}
    in_may = {o: sessions(o, date(2025, 5, 1), date(2025, 5, 31)) for o in org_ids}
    in_april = {o: sessions(o, first, date(2025, 4, 30)) for o in org_ids}
    expected = {(o, names[o], in_june[o], sessions(o, date(2025, 5, 1), date(2025, 5, 9))) for o in org_ids}
    assert set(rows("Top organizations this month")) == expected
    assert {row[1:4] for row in rows("Growth")} == {(o, in_may[o], in_april[o]) for o in org_ids}
    growth = {row[1]: row[4] for row in rows("Growth")}
    assert growth == {o: pytest.approx(100 * in_may[o] / in_april[o] - 100, abs=0.051) for o in org_ids}

    # Some sessions in May belong to no listed organization.
    shares = {(row[0], row[1]): row[3] for row in rows("Share of each")}
    whole = sum(in_may.values()) + 301
    assert {o: shares[date(2025, 5, 1), o] for o in org_ids} == {
        o: pytest.approx(100 * in_may[o] / whole, abs=0.051) for o in org_ids
    }

    recent = sorted((sessions(o, last - timedelta(days=27), last) for o in org_ids), reverse=True)
    few = next(n for n in range(len(recent)) if sum(recent[:n]) >= 0.8 * sum(recent))
    assert rows("How few organizations") == [(few, sum(n > 0 for n in recent), len(recent))]

    assert rows("Organizations that had sessions once") == [
        (dormant.org_id, dormant.org_name, date(2025, 4, 2), sessions(dormant.org_id, first, last))
    ]
    first_days = {o: min(day for (day, of), n in truth.items() if of == o and n) for o in org_ids}
    expected_firsts = set()
    for o, at in created.items():
        on = at.date() if at else None
        expected_firsts.add((o, names[o], on, first_days[o], (first_days[o] - on).days if on else None))
    assert set(rows("First session of each")) == expected_firsts

    per_day = {day: sum(truth[day, o] for o in org_ids) for day, _ in truth}
    per_day[date(2025, 5, 20)] += 300
    per_day[date(2025, 5, 26)] += 1
    so_far = rows("Sessions since the first day of the quarter")
    assert [row[0] for row in so_far] == sorted(per_day)
    assert so_far[-1] == (last, first, sum(per_day.values()), len(per_day))

    mondays = [date(2025, 4, 7) + timedelta(weeks=n) for n in range(9)]
    weeks = [sum(per_day[monday + timedelta(days=n)] for n in range(7)) for monday in mondays]
    assert [row[:2] for row in rows("Complete weeks")] == [*zip(mondays, weeks, strict=True)][:3:-1]
    assert rows("Complete weeks")[-1][2] == pytest.approx(sum(weeks[:4]) / 4, abs=0.051)

    by_week = {
        monday: {o for (day, o), n in truth.items() if n and day - timedelta(days=day.weekday()) == monday}
        for monday in [date(2025, 3, 31), *mondays, date(2025, 6, 9)]
    }
    seen, before, expected_weeks = set[str](), set[str](), []
    for monday, active in by_week.items():
        expected_weeks.append((monday, len(active), len(active & before), len(active - seen)))
        seen, before = seen | active, active
    assert rows("Active organizations per week") == expected_weeks

    of_weekends = {row[0]: row[2:] for row in rows("Sessions of each organization on an average")}
    for o in org_ids:
        for is_weekend in (False, True):
            counts = [n for (day, of), n in truth.items() if of == o and (day.weekday() >= 5) == is_weekend]
            assert of_weekends[o][is_weekend] == pytest.approx(sum(counts) / len(counts), abs=0.051)

    quarter = {row[1]: row[2:] for row in rows("Sessions of each organization by quarter") if row[0] == first}
    settled = per_day.keys() & {
        day for (day,) in each_world.rows("select day from enterprise_sessions where is_settled")
    }
    loaded = len(per_day)
    for o in org_ids:
        of_all = names[o], sum(n for (_, of), n in truth.items() if of == o), loaded, len(settled), loaded - 2
        assert (*quarter[o][:2], *quarter[o][3:]) == of_all
    by_month = {row[0]: row[1:4] for row in rows("The enterprise by month")}
    assert by_month[date(2025, 5, 1)] == (whole, 301, pytest.approx(100 * 301 / whole, abs=0.051))
    assert by_month[date(2025, 6, 1)][:2] == (sum(in_june.values()), 0)

    active_in_april = [n for (day, _), n in truth.items() if n and day.month == 4]
    assert rows("Median and mean")[0][:3] == (first, len(org_ids), median(active_in_april))

    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    assert rows("Ranges of days")[0] == (date(2025, 3, 15), date(2025, 3, 31), 17)
    assert rows("Ranges of days")[1:] == [(date(2025, 6, 10), yesterday, (yesterday - last).days)]
    assert [(row[0], row[1], row[4], row[5]) for row in rows("Days that are loaded but not proven")] == [
        (date(2025, 5, 26), "unattributed", 1, 0),
        (date(2025, 5, 20), "unattributed", 300, 0),
    ]
    (restated,) = rows("How much of each month was restated")
    assert restated[:5] == (date(2025, 6, 1), 2, 2, 2, sum(in_june.values()))
    ((days_after, changes, moved),) = rows("How many days after")
    assert (changes, moved) == (2, 2)
    assert days_after == (datetime.now(UTC) - datetime(2025, 6, 10, tzinfo=UTC)).days


HARDENING = {
    "UMask": "0077",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictSUIDSGID": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "SystemCallFilter": "@system-service",
}


def test_the_units_run_the_installed_programs_and_are_hardened() -> None:
    names = {"devin-sessions-daemon.service": dagster_daemon, "devin-sessions-webserver.service": dagster_webserver}
    assert units().keys() == names.keys()
    for name, unit in units().items():
        service = unit["Service"]
        program, *arguments = shlex.split(service["ExecStart"].replace("\\\n", " "))
        assert Path(program).parent == Path(INSTALLED, ".venv/bin")
        assert (Path(sys.executable).parent / Path(program).name).is_file()
        if Path(program).name == "dagster-daemon":
            assert arguments.pop(0) == "run"
        here = [argument.replace(INSTALLED, str(PROJECT)) for argument in arguments]
        context = names[name].make_context(name, here)  # parses, and checks that the workspace exists
        assert context.params["workspace"] == (str(PROJECT / "workspace.yaml"),)
        assert context.params.get("host", "127.0.0.1") == "127.0.0.1"
        assert {option: service.get(option) for option in HARDENING} == HARDENING
        assert (service["User"], service["Group"]) == ("devin-sessions", "devin-sessions")
        assert service["EnvironmentFile"] == "/etc/devin-sessions/environment"
        assert service["ReadWritePaths"] == service["WorkingDirectory"] == STATE
        assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_the_unit_of_an_enterprise_is_hardened_like_the_others_and_systemd_accepts_it(tmp_path: Path) -> None:
    unit = parsed(text(PROJECT / "deploy" / "devin-sessions@.service"))
    webserver = units()["devin-sessions-webserver.service"]
    own = {"Environment": "DEVIN_ENTERPRISE=%i", "EnvironmentFile": "/etc/devin-sessions/%i.env"}
    program = unit["Service"]["ExecStart"]
    assert {**unit["Service"]} == {**webserver["Service"], **own, "ExecStart": program}
    assert program.split()[0] == f"{INSTALLED}/.venv/bin/dagster"
    assert unit["Install"] == webserver["Install"]
    if analyze := shutil.which("systemd-analyze"):
        here = tmp_path / "devin-sessions@acme.service"
        shown = text(PROJECT / "deploy" / "devin-sessions@.service")
        here.write_text(shown.replace(f"{INSTALLED}/.venv/bin", str(Path(sys.executable).parent)), encoding="utf-8")
        found = subprocess.run([analyze, "verify", str(here)], capture_output=True, text=True, check=False)
        assert (found.returncode, found.stderr) == (0, "")


def test_the_services_write_only_where_they_may_and_only_root_reads_the_secrets(
    for_dagster: dict[str, str],
) -> None:
    variables = environment_file()
    assert variables["WAREHOUSE_URL"] == f"duckdb:///{STATE}/warehouse.duckdb"
    assert variables["DAGSTER_HOME"] == f"{STATE}/dagster"
    assert variables["XDG_CACHE_HOME"].startswith(f"{STATE}/")
    (on_postgresql,) = (block for block in blocks(DEPLOYMENT, "dotenv") if block.startswith("WAREHOUSE_URL=p"))
    assert f"\nDEVIN_REPORT_PATH={STATE}/" in on_postgresql, "its default is in the program's directory"
    lines = [line.strip() for block in blocks(DEPLOYMENT, "") for line in block.splitlines()]
    assert "install -m 0600 /dev/null /etc/devin-sessions/environment" in lines
    assert f"install -d -o devin-sessions -g devin-sessions -m 0711 {STATE}" in lines
    assert variables["DAGSTER_EVENT_BATCH_SIZE"] == for_dagster["DAGSTER_EVENT_BATCH_SIZE"]


def test_dagster_on_postgresql_is_set_up_with_the_matching_library() -> None:
    (block,) = blocks(DEPLOYMENT, "yaml")
    shown = safe_load_yaml(block)
    name = shown["storage"]["postgres"]["postgres_url"]["env"]
    assert f"\n   {name}=postgresql+psycopg2://" in text(DEPLOYMENT)
    ours = safe_load_yaml(text(PROJECT / "pipelines" / "command" / "dagster.yaml"))
    ours.pop("event_log_storage")
    assert shown == ours | {"storage": shown["storage"]}
    major, minor, patch = importlib.metadata.version("dagster").split(".")
    assert major == "1"
    library = f"0.{int(minor) + 16}.{patch}"  # as Dagster numbers its libraries
    assert f" dagster-postgres=={library} " in text(DEPLOYMENT)
    assert f"{library} to {major}.{minor}.{patch}" in text(DEPLOYMENT)
