"""How a message names things of which there may be many."""

from collections.abc import Sequence

_SHOWN = 3


def first_few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are, such as `a, b, c and 2 more`."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
