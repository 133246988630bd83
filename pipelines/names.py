"""The names of what an instance of Dagster knows by name alone: they begin with DEVIN_ENTERPRISE, if that is set.

So several enterprises can share one Dagster, each with a code location of its own.
"""

from pipelines.settings import Settings

JOB, FOLLOW, ALERTS, POOL = "daily_refresh", "loaded_days_follow", "alerts", "devin_api"
"""The names where DEVIN_ENTERPRISE is not set."""


def named(enterprise: str, name: str) -> str:
    """`name` as this enterprise has it: `acme_daily_refresh` for acme."""
    return f"{enterprise}_{name}" if enterprise else name


def job(settings: Settings) -> str:
    """The job of every night, whose runs `devin-sessions backfill` makes too."""
    return named(settings.devin_enterprise, JOB)


def jobs(settings: Settings) -> tuple[str, str]:
    """The jobs that may load days. The second one is Dagster's own, for assets materialized in its UI."""
    return job(settings), "__ASSET_JOB"


def schedule(settings: Settings) -> str:
    """The schedule of the job."""
    return f"{job(settings)}_schedule"


def follow(settings: Settings) -> str:
    """The sensor that rebuilds what is behind the stored days."""
    return named(settings.devin_enterprise, FOLLOW)


def alerts(settings: Settings) -> str:
    """The sensor that sends messages to the webhook."""
    return named(settings.devin_enterprise, ALERTS)


def pool(settings: Settings) -> str:
    """The pool of the assets that ask the API: its limit is for the key, so each enterprise has one."""
    return f"{POOL}_{settings.devin_enterprise}" if settings.devin_enterprise else POOL
