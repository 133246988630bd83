"""How many days a block spans at most, and organizations a question; how days are cut into blocks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipelines.partitions import Day

DAYS_PER_BLOCK = 31
DAYS_PER_LISTED_BLOCK = 93
"""A proof takes a request for each id, however many days it is about. More days would save little: each takes one."""
COUNTS_PER_LISTED_BLOCK = 100_000
ORGS_PER_QUESTION = 50
SESSIONS_PER_WINDOW = 400
"""Of a list: its windows are read side by side, the pages of one after each other."""

Wanted = dict[Day, Sequence[str]]
"""The ids to count on each day."""


@dataclass(frozen=True)
class PlannedBlock:
    """Consecutive days on which the same ids are counted."""

    days: list[Day]
    ids: Sequence[str]


def in_blocks(wanted: Wanted, is_listed: Callable[[], bool] = lambda: False) -> Iterator[PlannedBlock]:
    """The days in blocks of consecutive days with the same ids, without days that have no ids.

    A block has up to DAYS_PER_BLOCK days, or more if `is_listed` says, when the block is due, that the list of sessions
    is being used.
    """
    block, longest = None, 0
    for day, ids in wanted.items():
        if not ids:
            continue
        if block and (len(block.days) == longest or block.days[-1].end != day.start or block.ids != ids):
            yield block
            block = None
        if not block:
            block, longest = PlannedBlock([], ids), _listed(len(ids)) if is_listed() else DAYS_PER_BLOCK
        block.days.append(day)
    if block:
        yield block


def _listed(ids: int) -> int:
    """How many days a block with this many ids has at most where the list of sessions is read."""
    return max(DAYS_PER_BLOCK, min(DAYS_PER_LISTED_BLOCK, COUNTS_PER_LISTED_BLOCK // ids))
