"""The project's `.env` file fills in what the environment lacks."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import copy_of_the_project
from tests.support.variables import SECRET, VARIABLES


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project in a directory of its own, with its own `.env`."""
    directory = tmp_path / "project"
    directory.mkdir()
    return copy_of_the_project(directory)


def load_in(project: Path, working_directory: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """The settings that a new process loads if its environment has these variables and no other settings."""
    code = (
        "import json, os; from pipelines.settings import PROJECT, Settings; s = Settings.load(); "
        "print(json.dumps({'project': str(PROJECT), 'key': os.environ.get('DEVIN_API_KEY'), "
        "**s.model_dump(mode='json')}))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **variables, "PYTHONPATH": str(project)},
        cwd=working_directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    assert loaded["project"] == str(project)
    return loaded


def test_the_projects_env_file_fills_in_only_what_the_environment_lacks(project: Path, tmp_path: Path) -> None:
    (project / ".env").write_text(
        f"DEVIN_API_KEY=apk_user_{SECRET}\n"
        "DEVIN_TIMEZONE=Asia/Tokyo\n"
        "export DEVIN_ORG_IDS='org-1, org-2'  # quoted\n"
        "DEVIN_MAX_TRIES=7\n"
        "WAREHOUSE_URL=duckdb:///from_file.duckdb\n"
    )
    (tmp_path / ".env").write_text("DEVIN_DAY_START_HOUR=23\n")
    loaded = load_in(project, tmp_path, {"DEVIN_TIMEZONE": "Europe/Berlin", "DEVIN_MAX_TRIES": ""})
    assert loaded["devin_timezone"] == "Europe/Berlin"
    assert loaded["devin_max_tries"] == 5
    assert loaded["devin_org_ids"] == ["org-1", "org-2"]
    assert loaded["warehouse_url"] == f"duckdb:///{project}/from_file.duckdb"
    # The `.env` in the working directory is ignored.
    assert loaded["devin_day_start_hour"] == 0
    # The API client reads the key from the environment.
    assert loaded["key"] == f"apk_user_{SECRET}"


def test_without_variables_and_without_an_env_file_every_setting_is_its_default(project: Path, tmp_path: Path) -> None:
    loaded = load_in(project, tmp_path, {})
    assert loaded["devin_api_key"] is loaded["key"] is None
    assert loaded["devin_api_url"] == "https://api.devin.ai"
    assert loaded["devin_start_date"] == "2025-01-01"
    assert loaded["warehouse_url"] == f"duckdb:///{project}/data/warehouse.duckdb"
