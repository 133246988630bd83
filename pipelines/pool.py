"""The limit of the pool in which is whatever asks the API."""

import dagster as dg

from pipelines import names
from pipelines.settings import Settings


def limit_the_pool(instance: dg.DagsterInstance, settings: Settings) -> None:
    """Give the pool its default limit: Dagster does so only after it has started the first runs that are in it."""
    storage, pool = instance.event_log_storage, names.pool(settings)
    if instance.global_op_concurrency_default_limit and pool not in storage.get_concurrency_keys():
        storage.initialize_concurrency_limit_to_default(pool)
