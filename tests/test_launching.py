"""A warehouse in a file, and a run launcher whose runs don't see it: any that Dagster has, and a company's own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster_k8s import K8sRunLauncher

from pipelines.command.status import status
from pipelines.follow import follow_sensor
from pipelines.launching import file_out_of_reach, launches_elsewhere
from pipelines.names import JOB
from tests.support.world import World


class CompanyLauncher(K8sRunLauncher):
    """A company's own, under a name that says nothing."""


class LocalLauncher(dg.DefaultRunLauncher):
    """One whose runs are this machine's processes."""


@contextmanager
def launched_by(directory: Path, module: str, name: str) -> Iterator[dg.DagsterInstance]:
    directory.mkdir(exist_ok=True)
    launcher = {"module": module, "class": name}
    with dg.DagsterInstance.local_temp(str(directory), overrides={"run_launcher": launcher}) as instance:
        yield instance


@pytest.mark.parametrize(
    ("module", "name", "is_elsewhere"),
    [
        ("dagster_k8s", "K8sRunLauncher", True),
        ("dagster_k8s.launcher", "K8sRunLauncher", True),
        (__name__, "CompanyLauncher", True),
        ("dagster_docker", "DockerRunLauncher", True),
        ("dagster_celery.launcher", "CeleryRunLauncher", True),
        ("dagster_aws.ecs", "EcsRunLauncher", True),
        ("dagster.core.launcher", "DefaultRunLauncher", False),
        (__name__, "LocalLauncher", False),
        ("not_installed_here", "Launcher", False),
    ],
)
def test_a_launcher_is_known_by_its_package_and_those_of_its_bases(
    tmp_path: Path, module: str, name: str, *, is_elsewhere: bool
) -> None:
    assert "dagster_docker" not in sys.modules, "a launcher need not be installed to be known"
    with launched_by(tmp_path, module, name) as instance:
        assert launches_elsewhere(instance) == (name if is_elsewhere else "")


def test_an_instance_in_memory_has_no_launcher_that_is_elsewhere(world: World) -> None:
    assert launches_elsewhere(world.instance) == ""


def test_status_and_the_sensor_say_that_runs_do_not_see_a_file_until_one_has_succeeded(world: World) -> None:
    with launched_by(world.directory / "dagster", __name__, "CompanyLauncher") as instance:

        def told() -> set[bool]:
            """Whether the sensor's tick, and the status, begin with it or list it."""
            tick = follow_sensor(world.settings)(dg.build_sensor_context(instance, definitions=world.definitions))
            assert isinstance(tick, dg.SensorResult) and tick.skip_reason
            skipped = tick.skip_reason.skip_message or ""
            return {skipped.startswith(sentence), sentence in status(world.settings, instance).to_do}

        sentence = (
            f"The warehouse {world.database.path} is a DuckDB file, but CompanyLauncher gives each run a container or "
            "a machine of its own, without that file: runs fail. Set WAREHOUSE_URL to a PostgreSQL database, for the "
            "code location and its runs alike."
        )
        job, success = world.definitions.resolve_job_def(JOB), dg.DagsterRunStatus.SUCCESS
        instance.create_run_for_job(job, status=success)
        assert told() == {True}, "a backfill on this machine sees the file, launched runs don't"
        world.configure(warehouse_url="duckdb:///md:sessions")
        assert file_out_of_reach(instance, world.settings) == "", "it is on a server"
        world.configure(warehouse_url=f"duckdb:///{world.directory}/warehouse.duckdb")
        origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("own"), "__repository__"), JOB)
        instance.create_run_for_job(job, status=success, remote_job_origin=origin)
        assert told() == {False}, "launched runs see it too"
