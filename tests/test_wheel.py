"""The wheel, installed for another user with each Python that is here: every command works from an empty directory."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pipelines.home import PROJECT
from resources.sandbox.server import Sandbox
from tests.support.noon import NOON, ago
from tests.support.person import Running, copy_project
from tests.support.ports import free_port
from tests.support.promised import truth

PYTHONS = ("3.11", "3.12", "3.13")
USER_ID = 123_456  # of nobody on this machine: there is no name, group or home for it
UV = str(Path(sys.executable).parent / "uv")


def interpreter(version: str) -> Path | None:
    """A Python of this version, preferably one that every user can run; None if the machine has none."""
    system = Path(f"/usr/bin/python{version}")
    if system.exists():
        return system
    found = subprocess.run([UV, "python", "find", "--no-project", version], capture_output=True, text=True, check=False)
    return Path(found.stdout.strip()) if found.returncode == 0 else None


QUESTION = """{
    workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } }
    assetNodes { assetKey { path } partitionStats { numMaterialized } }
}"""

HERE = [version for version in PYTHONS if interpreter(version)]


def can_be_run_by_all(path: Path) -> bool:
    real = path.resolve()
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (real, *real.parents))


@dataclass
class Installation:
    """An environment in which the wheel is installed, and a user who can change nothing in it."""

    directory: Path
    user: tuple[str, ...]

    @property
    def home(self) -> Path:
        return self.directory / "home"

    def command(self, *arguments: str) -> list[str]:
        return [*self.user, str(self.directory / "environment" / "bin" / "devin-sessions"), *arguments]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        # The user cannot write bytecode there, and each command would compile everything again.
        bytecode = {"PYTHONPYCACHEPREFIX": str(self.directory / "bytecode")}
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8", **bytecode, **variables}

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Exit code and output of a command typed in an empty directory. A variable that is empty is unset."""
        environment = {name: value for name, value in self.environment(variables).items() if value}
        with tempfile.TemporaryDirectory(prefix="empty-") as empty:
            Path(empty).chmod(0o777)
            done = subprocess.run(
                self.command(*arguments),
                env=environment,
                cwd=empty,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=240,
                check=False,
            )
            assert [*Path(empty).iterdir()] == [], "nothing is left in the working directory"
        assert "Traceback" not in done.stdout, done.stdout
        return done.returncode, done.stdout

    def files(self) -> set[str]:
        """Everything that is installed."""
        root = self.directory / "environment"
        return {str(path.relative_to(root)) for path in root.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wheel-") as directory:
        copy_project(Path(directory) / "checkout")
        build = [UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable]
        subprocess.run([*build, "--out-dir", directory, Path(directory) / "checkout"], check=True)
        (built,) = Path(directory).glob("*.whl")
        yield built


def install_as_the_page_says(wheel: Path, python: Path, environment: Path) -> None:
    """Type the lines of the page, in a directory with the lock and the wheel."""
    page = (PROJECT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"### Without a checkout\n.*?```\n(.*?)```", page, re.DOTALL)
    typed = lines.replace("/opt/devin-session-metrics/.venv", str(environment)).replace("python3 -m", f"{python} -m")
    assert typed.count(str(environment)) == 3, lines
    shutil.copy(PROJECT / "requirements.lock", wheel.parent)
    quiet = {"PIP_QUIET": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(["bash", "-e", "-c", typed], cwd=wheel.parent, env={**os.environ, **quiet}, check=True)


def install(wheel: Path, python: Path, environment: Path, *, as_the_page_says: bool) -> None:
    subprocess.run([UV, "venv", "--quiet", "--python", python, environment], check=True)
    by_uv = [UV, "pip", "install", "--quiet", "--no-deps", "--python", str(environment / "bin" / "python")]
    # First, and by uv, in a tenth of the time: pip then finds what the lock asks for.
    subprocess.run([*by_uv, "--require-hashes", "--requirements", str(PROJECT / "requirements.lock")], check=True)
    if as_the_page_says:
        install_as_the_page_says(wheel, python, environment)
    else:
        subprocess.run([*by_uv, str(wheel)], check=True)


@pytest.fixture(scope="module", params=HERE)
def installation(wheel: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    python = interpreter(request.param)
    assert python is not None
    directory = Path(tempfile.mkdtemp(prefix="installed-"))
    directory.chmod(0o755)
    environment = directory / "environment"
    install(wheel, python, environment, as_the_page_says=request.param == HERE[0])
    is_other = os.geteuid() == 0 and can_be_run_by_all(python)
    user = ("setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups") if is_other else ()
    here = Installation(directory, user)
    for own in (here.home, directory / "bytecode"):
        own.mkdir()
        if is_other:
            os.chown(own, USER_ID, USER_ID)
    yield here
    shutil.rmtree(directory)


def test_this_machine_has_a_python_to_install_into() -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in HERE


def test_the_demo_needs_no_checkout_and_ends_with_the_report(installation: Installation) -> None:
    before = installation.files()
    code, shown = installation.run("demo", "--days", "3")
    assert code == 0, shown
    demo = installation.home / ".local/share/devin-sessions/demo"
    assert (demo / "published" / "report.html").exists()
    assert str(demo / "published" / "report.html") in shown
    assert installation.files() == before


def _has_a_daemon(url: str) -> bool:
    asked = "{ instance { daemonHealth { allDaemonStatuses { lastHeartbeatTime } } } }"
    answer = httpx.post(url, json={"query": asked}, timeout=60).raise_for_status().json()
    return any(
        daemon["lastHeartbeatTime"] for daemon in answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    )


@contextmanager
def served(installation: Installation, variables: Mapping[str, str]) -> Iterator[tuple[Running, str]]:
    port = free_port()
    log = installation.directory / "ui.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            installation.command("ui", "--port", str(port)),
            env=installation.environment(variables),
            cwd=installation.home,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Running(process, log)
    try:
        yield running, (url := f"http://127.0.0.1:{port}/graphql")
        running.wait_for(lambda: _has_a_daemon(url))  # before that, Ctrl-C kills it
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(120) == 0, running.output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "Traceback" not in running.output, running.output


def test_days_are_loaded_shown_and_served_from_an_env_file_in_the_working_directory(
    installation: Installation,
) -> None:
    first, second, last = ago(3), ago(2), ago(1)
    with Sandbox(organizations=3) as source:
        settings = {"DEVIN_API_URL": source.url, "DEVIN_API_KEY": source.api_key, "DEVIN_START_DATE": first}
        settings |= {"DEVIN_TIMEZONE": NOON}
        code, shown = installation.run("backfill", first, last, **settings)
        assert code == 0, shown
        code, shown = installation.run("status", "--json", **settings)
        assert (code, json.loads(shown)["organizations"]["days_loaded"]) == (0, 3)
        sql = "select day, org_id, sessions_count from daily_sessions"
        code, shown = installation.run("query", "--csv", sql, **settings)
        cells = [line.split(",") for line in shown.splitlines()[1:]]
        assert {(day, org_id): int(count) for day, org_id, count in cells} == {
            (day, o.org_id): truth(source, day, o.org_id) for day in (first, second, last) for o in source.organizations
        }
        env_file = installation.home / ".env"
        env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
        env_file.chmod(0o600)
        if installation.user:
            os.chown(env_file, USER_ID, USER_ID)
        with served(installation, {}) as (running, url), httpx.Client(timeout=60) as client:
            answer = running.wait_for(lambda: client.post(url, json={"query": QUESTION})).json()["data"]
        assert answer["workspaceOrError"]["locationEntries"] == [
            {"name": "devin_session_metrics", "locationOrLoadError": {"__typename": "RepositoryLocation"}}
        ]
        materialized = {n["assetKey"]["path"][-1]: n["partitionStats"] for n in answer["assetNodes"]}
        assert materialized["daily_sessions"] == {"numMaterialized": 3}


def test_a_user_without_a_home_is_asked_for_devin_home_and_then_has_everything(installation: Installation) -> None:
    if not installation.user:
        pytest.skip("only root can run commands as a user that does not exist, and only with a Python that all can run")
    code, shown = installation.run("status", HOME="")
    assert code == 2
    assert "You have no home directory on this machine: set DEVIN_HOME to a directory for the data." in shown
    home = installation.home / "mine"
    yesterday = ago(1)
    with Sandbox(organizations=2) as source:
        settings = {"DEVIN_API_URL": source.url, "DEVIN_API_KEY": source.api_key, "DEVIN_START_DATE": yesterday}
        settings |= {"DEVIN_TIMEZONE": NOON}
        code, shown = installation.run("backfill", yesterday, yesterday, HOME="", DEVIN_HOME=str(home), **settings)
    assert code == 0, shown
    assert (home / "published" / "report.html").exists()
