"""The keys under which Dagster knows the assets: their names, after the prefix in DEVIN_ASSET_PREFIX."""

from collections.abc import Iterable

import dagster as dg
from dagster._core.remote_origin import CodeLocationOrigin

from pipelines import names
from pipelines.settings import Settings
from warehouse import tables
from warehouse.dimensions import DIMENSIONS

PUBLISHED_SNAPSHOT, PUBLISHED_FILES, ACTIVITY_REPORT = "published_snapshot", "published_files", "activity_report"
PUBLISHED = (PUBLISHED_SNAPSHOT, PUBLISHED_FILES, ACTIVITY_REPORT)
"""What is made from the warehouse for others, in the order in which it is."""

Key = dg.AssetKey | dg.AssetCheckKey

_NAMES = {
    *(table.name for dimension in DIMENSIONS for table in (dimension.listed, dimension.cells)),
    *(rollup.name for rollup in tables.ROLLUPS),
    *PUBLISHED,
}


def asset_key(settings: Settings, name: str) -> dg.AssetKey:
    """The key of the asset with this name."""
    return dg.AssetKey([*settings.devin_asset_prefix, name])


def is_from(location: CodeLocationOrigin | None, run: dg.DagsterRun) -> bool:
    """Whether a run is one of this code location's; runs of `devin-sessions backfill` belong to none, and count."""
    return (
        location is None
        or run.remote_job_origin is None
        or run.remote_job_origin.location_name == location.location_name
    )


def is_any_ours(settings: Settings, keys: Iterable[dg.AssetKey] | None) -> bool:
    """Whether an asset of this project is among `keys`: an instance may have other code locations too."""
    return not {asset_key(settings, name) for name in _NAMES}.isdisjoint(keys or ())


def is_ours(settings: Settings, run: dg.DagsterRun, location: CodeLocationOrigin | None = None) -> bool:
    """Whether this is a run of the job, or of any of its assets or their checks, in this code location."""
    chosen = {*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())}
    return is_from(location, run) and (is_any_ours(settings, chosen) if chosen else run.job_name == names.job(settings))
