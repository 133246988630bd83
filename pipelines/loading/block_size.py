"""How many days a block spans at most, and organizations a question; how days are cut into blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.partitions import Day

DAYS_PER_BLOCK = 31
ORGS_PER_QUESTION = 50
SESSIONS_PER_WINDOW = 800
"""Of a list: its windows are read side by side, the pages of one after each other."""

Wanted = dict[Day, Sequence[str]]
"""The ids to count on each day."""


@dataclass(frozen=True)
class PlannedBlock:
    """Consecutive days on which the same ids are counted."""

    days: list[Day]
    ids: Sequence[str]


def in_blocks(wanted: Wanted) -> Iterator[PlannedBlock]:
    """The days in blocks of up to DAYS_PER_BLOCK consecutive days with the same ids, without days that have no ids."""
    block: PlannedBlock | None = None
    for day, ids in wanted.items():
        if not ids:
            continue
        if block and (len(block.days) == DAYS_PER_BLOCK or block.days[-1].end != day.start or block.ids != ids):
            yield block
            block = None
        block = block or PlannedBlock([], ids)
        block.days.append(day)
    if block:
        yield block
