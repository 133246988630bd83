"""How often, and how soon, what has lost the connection to its database is repeated."""

from typing import TypeVar

import tenacity

from resources.database_errors import Described, WarehouseAway, WarehouseLost

_LEAST_TRIES = 6  # however long each of them takes
_SHORTEST_WAIT_SECONDS = 0.5

_Repeating = TypeVar("_Repeating", bound=tenacity.BaseRetrying)


def repeating(kind: type[_Repeating], database: Described) -> _Repeating:
    """Calls a function again and again while it raises WarehouseLost, for `lock_timeout_seconds` of the database.

    A server has restarted within that time, 30 s. The error that is left says how long that was; the database's `tell`
    hears once that a server is waited for.
    """
    seconds = database.lock_timeout_seconds
    told = False

    def tell(state: tenacity.RetryCallState) -> None:
        nonlocal told
        error = _error(state)
        if database.tell is not None and isinstance(error, WarehouseAway) and not told:
            told = True
            database.tell(f"{error.what} The run waits up to {seconds:g} s for it.")

    return kind(
        retry=tenacity.retry_if_exception_type(WarehouseLost),
        wait=tenacity.wait_random_exponential(_SHORTEST_WAIT_SECONDS, seconds / 8),
        stop=tenacity.stop_all(tenacity.stop_after_attempt(_LEAST_TRIES), tenacity.stop_after_delay(seconds)),
        before_sleep=tell,
        retry_error_callback=_give_up,
    )


def _give_up(state: tenacity.RetryCallState) -> None:
    error = _error(state)
    assert error is not None, "else it would not be over"
    waited = f"Waited for it: {state.attempt_number} tries in {state.seconds_since_start:.0f} s."
    raise type(error)(f"{error} {waited}") from None


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
