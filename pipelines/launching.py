"""Which run launchers start a run away from this machine's files, and what that means for a warehouse in a file."""

import importlib

import dagster as dg

from pipelines.asset_keys import is_ours
from pipelines.settings import Settings
from resources.database_errors import URL_VARIABLE

# Each run has a container of its own, or any of several machines.
_PACKAGES = {
    "dagster_aws",
    "dagster_celery",
    "dagster_celery_docker",
    "dagster_celery_k8s",
    "dagster_contrib_gcp",
    "dagster_docker",
    "dagster_k8s",
}
_RUNS_READ = 100  # in an instance of several code locations, the last ones may be another's
NEEDS_A_SERVER = f"Set {URL_VARIABLE} to a PostgreSQL database, for the code location and its runs alike."


def launches_elsewhere(instance: dg.DagsterInstance) -> str:
    """The name of the instance's run launcher if its runs don't share this machine's files, else an empty string."""
    launcher = instance.get_ref().run_launcher_data if instance.is_persistent else None
    if launcher is None:
        return ""
    modules = {launcher.module_name, *_modules_of_bases(launcher.module_name, launcher.class_name)}
    return "" if _PACKAGES.isdisjoint(module.partition(".")[0] for module in modules) else launcher.class_name


def file_out_of_reach(instance: dg.DagsterInstance, settings: Settings) -> str:
    """A sentence if the warehouse is a file that launched runs don't see; empty once one of them has succeeded."""
    if not settings.warehouse.is_file or not (launcher := launches_elsewhere(instance)):
        return ""
    succeeded = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]), limit=_RUNS_READ)
    if any(run.remote_job_origin is not None and is_ours(settings, run) for run in succeeded):
        return ""  # they have its directory, such as a volume that all share
    return (
        f"The warehouse {settings.warehouse.path} is a DuckDB file, but {launcher} gives each run a container or a "
        f"machine of its own, without that file: runs fail. {NEEDS_A_SERVER}"
    )


def _modules_of_bases(module_name: str, class_name: str) -> list[str]:
    """The modules of a class and its bases; none where it isn't installed, as in the container of a run."""
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ImportError:
        return []
    return [base.__module__ for base in getattr(found, "__mro__", ())]
