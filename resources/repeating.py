"""How often, and how soon, a statement that has lost the connection to its database is repeated."""

from typing import TypeVar

import tenacity

from resources.database_errors import WarehouseLost

_MAX_TRIES, _MAX_WAIT_SECONDS = 6, 8.0  # some 20 s in all: enough for a server to restart

_Repeating = TypeVar("_Repeating", bound=tenacity.BaseRetrying)


def repeating(kind: type[_Repeating]) -> _Repeating:
    """Calls a function up to six times in all, as long as it raises WarehouseLost."""
    return kind(
        retry=tenacity.retry_if_exception_type(WarehouseLost),
        wait=tenacity.wait_random_exponential(0.5, _MAX_WAIT_SECONDS),
        stop=tenacity.stop_after_attempt(_MAX_TRIES),
        reraise=True,
    )
