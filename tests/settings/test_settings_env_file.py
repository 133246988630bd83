"""Where data goes, and which `.env` files fill in what the environment lacks."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines import env_files
from pipelines.home import PROJECT
from tests.support.command import copy_of_the_project, started
from tests.support.variables import SECRET, VARIABLES, refusal

LOAD = """
import json, os, sys
from pipelines.command.dagster_home import dagster_home
from pipelines.home import PROJECT
from pipelines.settings import Settings

for line in sys.stdin:
    working_directory, variables = json.loads(line)
    if not os.fork():
        os.chdir(working_directory)
        os.environ.clear()
        os.environ.update(variables)
        settings = Settings.load()
        loaded = {"project": str(PROJECT), "key": os.environ.get("DEVIN_API_KEY"), **settings.model_dump(mode="json")}
        loaded["report"] = str(settings.published_report)
        if "SHOW_DAGSTER_HOME" in os.environ:
            loaded["dagster_home"] = str(dagster_home())
        print(json.dumps(loaded), flush=True)
        os._exit(0)
    if os.wait()[1]:
        print("null", flush=True)
"""


@dataclass
class Copy:
    """A copy of the project in a directory of its own, and a process that loads settings there."""

    directory: Path
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    directory = copy_of_the_project(tmp_path_factory.mktemp("project"))
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    with subprocess.Popen(
        [sys.executable, "-c", LOAD],
        cwd=directory,
        env={**environment, "PYTHONPATH": str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Copy(directory, process)
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def project(copy: Copy) -> Iterator[Path]:
    """The copy, whose `.env`, data and pyproject.toml are this test's."""
    yield copy.directory
    (copy.directory / ".env").unlink(missing_ok=True)
    shutil.rmtree(copy.directory / "data", ignore_errors=True)
    shutil.copy(PROJECT / "pyproject.toml", copy.directory)


Load = Callable[..., dict[str, Any]]
"""Takes the working directory and variables; returns the settings that a process there loads."""


@pytest.fixture
def load_in(copy: Copy, project: Path) -> Load:
    def load(
        working_directory: Path, variables: Mapping[str, str], *, shows_dagster_home: bool = False
    ) -> dict[str, Any]:
        """The settings of a fork whose environment has these variables and no other settings."""
        inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        asked = {**inherited, **variables} | ({"SHOW_DAGSTER_HOME": "yes"} if shows_dagster_home else {})
        assert copy.process.stdin and copy.process.stdout
        copy.process.stdin.write(json.dumps([str(working_directory), asked]) + "\n")
        copy.process.stdin.flush()
        loaded: dict[str, Any] = json.loads(copy.process.stdout.readline())
        assert loaded, "it failed; its error is on standard error"
        assert loaded["project"] == str(project)
        return loaded

    return load


def test_an_env_file_fills_in_only_what_the_environment_lacks(project: Path, tmp_path: Path, load_in: Load) -> None:
    (project / ".env").write_text(
        f"DEVIN_API_KEY=apk_user_{SECRET}\n"
        "DEVIN_TIMEZONE=Asia/Tokyo\n"
        "export DEVIN_ORG_IDS='org-1, org-2'  # quoted\n"
        "DEVIN_MAX_TRIES=7\n"
        "WAREHOUSE_URL=duckdb:///from_file.duckdb\n"
    )
    loaded = load_in(tmp_path, {"DEVIN_TIMEZONE": "Europe/Berlin", "DEVIN_MAX_TRIES": ""})
    assert loaded["devin_timezone"] == "Europe/Berlin"
    assert loaded["devin_max_tries"] == 5
    assert loaded["devin_org_ids"] == ["org-1", "org-2"]
    assert loaded["warehouse_url"] == f"duckdb:///{project}/from_file.duckdb"
    # The API client reads the key from the environment.
    assert loaded["key"] == f"apk_user_{SECRET}"


def test_the_nearest_env_file_comes_before_the_checkouts_and_that_before_the_homes(
    project: Path, tmp_path: Path, load_in: Load
) -> None:
    below = tmp_path / "somewhere" / "below"
    below.mkdir(parents=True)
    hours, home = ["DEVIN_DAY_START_HOUR=1\n", "DEVIN_MAX_TRIES=2\n", "DEVIN_LOOKBACK_DAYS=4\n"], project / "data"
    home.mkdir()
    (tmp_path / ".env").write_text("DEVIN_CATCH_UP_DAYS=9\n")
    (tmp_path / "somewhere" / ".env").write_text(hours[0])
    (project / ".env").write_text(hours[0].replace("1", "2") + hours[1])
    (home / ".env").write_text("".join(hours).replace("1", "3").replace("=2", "=3"))
    loaded = load_in(below, {})
    assert loaded["devin_day_start_hour"] == 1
    assert loaded["devin_max_tries"] == 2
    assert loaded["devin_lookback_days"] == 4
    assert loaded["devin_catch_up_days"] == 35, "only the nearest of those upwards is read"


def test_an_env_file_above_the_working_directory_that_another_user_owns_is_not_read(
    project: Path, tmp_path: Path, load_in: Load
) -> None:
    (tmp_path / ".env").write_text("DEVIN_API_URL=https://elsewhere.example.com\n")
    for owner, is_read in ((None, True), (1234, False)):
        if owner:
            os.chown(tmp_path / ".env", owner, owner)
        assert (load_in(tmp_path, {})["devin_api_url"] == "https://elsewhere.example.com") is is_read
    _, _, shown = started("--help", cwd=tmp_path, PYTHONPATH=str(project))
    assert f"{tmp_path / '.env'} is not read: it belongs to the user with id 1234" in shown


def test_without_variables_and_without_an_env_file_every_setting_is_its_default(
    project: Path, tmp_path: Path, load_in: Load
) -> None:
    loaded = load_in(tmp_path, {})
    assert loaded["devin_api_key"] is loaded["key"] is None
    assert loaded["devin_api_url"] == "https://api.devin.ai"
    assert loaded["devin_start_date"] == "2025-01-01"
    assert loaded["warehouse_url"] == f"duckdb:///{project}/data/warehouse.duckdb"


def test_devin_home_holds_all_data_and_relative_paths_start_there(project: Path, tmp_path: Path, load_in: Load) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".env").write_text("DEVIN_REPORT_PATH=web/page.html\n")
    loaded = load_in(tmp_path, {"DEVIN_HOME": str(home)}, shows_dagster_home=True)
    assert loaded["warehouse_url"] == f"duckdb:///{home}/warehouse.duckdb"
    assert loaded["report"] == f"{home}/web/page.html"
    assert loaded["dagster_home"] == f"{home}/dagster"
    loaded = load_in(tmp_path, {"DEVIN_HOME": "~/mine", "HOME": str(home), "DEVIN_REPORT_PATH": ""})
    assert loaded["report"] == f"{home}/mine/published/report.html"


def test_an_installation_without_a_checkout_uses_the_users_data_directory(
    project: Path, tmp_path: Path, load_in: Load
) -> None:
    (project / "pyproject.toml").unlink()
    loaded = load_in(tmp_path, {"HOME": str(tmp_path), "XDG_DATA_HOME": ""}, shows_dagster_home=True)
    home = tmp_path / ".local" / "share" / "devin-sessions"
    assert loaded["warehouse_url"] == f"duckdb:///{home}/warehouse.duckdb"
    assert loaded["dagster_home"] == f"{home}/dagster"
    relative = load_in(tmp_path, {"HOME": str(tmp_path), "XDG_DATA_HOME": "", "DEVIN_REPORT_PATH": "a.html"})
    assert relative["report"] == f"{home}/a.html"


def test_a_bad_home_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, devin_home="data", warehouse_url="", devin_report_path="a.html")
    assert message.startswith("DEVIN_HOME='data' is refused (not an absolute path)")
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_env_file_of_another_system_is_read(
    project: Path, tmp_path: Path, kind: str, end: str, load_in: Load
) -> None:
    lines = ["DEVIN_DAY_START_HOUR = 8", "", "# a comment", "DEVIN_REPORT_PATH='reports/a b.html' ", ""]
    (project / ".env").write_bytes(end.join(lines).encode(kind))
    loaded = load_in(tmp_path, {})
    assert loaded["devin_day_start_hour"] == 8
    assert loaded["report"] == f"{project}/reports/a b.html"


def test_a_carriage_return_at_the_end_of_every_value_changes_no_file_name(
    project: Path, tmp_path: Path, load_in: Load
) -> None:
    home = tmp_path / "home"
    values = {"DEVIN_HOME": f"{home}\r", "WAREHOUSE_URL": f"duckdb:///{tmp_path}/w.duckdb\r\n"}
    values |= {"DAGSTER_HOME": f"{tmp_path}/dagster\r", "DEVIN_REPORT_PATH": "\r"}
    loaded = load_in(tmp_path, values, shows_dagster_home=True)
    assert loaded["warehouse_url"] == f"duckdb:///{tmp_path}/w.duckdb"
    assert loaded["dagster_home"] == f"{tmp_path}/dagster"
    assert loaded["report"] == f"{tmp_path}/published/report.html"
    assert {entry.name for entry in tmp_path.iterdir()} == {"dagster"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            f"DEVIN_TIMEZONE=UTC\nDEVIN_API_KEY='apk_user_{SECRET}\n".encode(),
            "{}: line 2 is not of the form NAME=value",
        ),
        (f"= {SECRET}\nA=1\n=\n".encode(), "{}: lines 1, 3 are not of the form NAME=value"),
        (f"DEVIN_API_KEY=apk_user_{SECRET}ö".encode("latin-1"), "{} is not text in UTF-8"),
    ],
    ids=["quote", "no name", "latin-1"],
)
def test_a_line_that_cannot_be_read_is_refused_with_its_number_and_never_shown(
    project: Path, tmp_path: Path, content: bytes, why: str
) -> None:
    file = project / ".env"
    file.write_bytes(content)
    file.chmod(0o600)
    code, _, err = started("status", cwd=tmp_path, PYTHONPATH=str(project))
    assert code == 2
    assert err.startswith(why.format(file))
    assert err.count("\n") == 1 and SECRET not in err


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DEVIN_REQUEST_PER_MINUTE", "Did you mean DEVIN_REQUESTS_PER_MINUTE?"),
        ("DEVIN_TIMEOUT", "Did you mean DEVIN_TIMEOUT_SECONDS?"),
        ("DEVN_API_KEY", "Did you mean DEVIN_API_KEY?"),
        ("devin_api_key", "Did you mean DEVIN_API_KEY?"),
        ("WAREHOUSE_URI", "Did you mean WAREHOUSE_URL?"),
        ("DEVIN_FAVORITE_COLOR", "It has no effect."),
    ],
)
def test_a_mistyped_name_is_reported_with_where_it_is_the_nearest_one_and_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, SECRET)
    assert env_files.unknown_names(VARIABLES) == [
        f"{name} is set in the environment, but there is no such setting. {meant}"
    ]
    monkeypatch.setenv(name, "")
    assert env_files.unknown_names(VARIABLES) == [], "an empty one counts as unset"
    monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(f"{name}={SECRET}\n")
    env_files.read(())
    assert env_files.unknown_names(VARIABLES) == [
        f"{name} is set in {tmp_path / '.env'}, but there is no such setting. {meant}"
    ]


@pytest.mark.parametrize("name", [*VARIABLES, "DATABASE_URL", "API_KEY", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_settings_and_variables_of_other_programs_are_not_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    assert env_files.unknown_names(VARIABLES) == []
