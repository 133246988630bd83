"""What is known about the days of one block: cells, control totals, contradictions. Pure."""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Literal

from pipelines.partitions import Day


@dataclass(frozen=True)
class Errors:
    """Which exceptions leave only some cells open; any other ends the block.

    `refusals` are final and concern the organizations in the question; `temporary` ones may not occur on a retry.
    """

    refusals: tuple[type[Exception], ...]
    temporary: tuple[type[Exception], ...]


How = Literal["asked", "derived", "listed"]
"""How a cell is known: it was asked for itself, is what other answers leave, or comes from the list of sessions."""


@dataclass(frozen=True)
class Cells:
    """How many cells are known, and how: `asked` for directly, `listed` and proven by totals, or derived from totals.

    Of the derived ones, those are `proven_zero` for which a total left nothing.
    """

    asked: int = 0
    derived: int = 0
    proven_zero: int = 0
    listed: int = 0

    @property
    def known(self) -> int:
        """The number of all known cells."""
        return sum(getattr(self, f.name) for f in fields(self))

    def __add__(self, other: "Cells") -> "Cells":
        return Cells(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: "Cells") -> "Cells":
        return Cells(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Contradiction:
    """The API counts `in_one` sessions from `first` to `last` in one window, but `by_day` day by day.

    This held in two readings in a row. `org_id` is None if the question was about the whole enterprise.
    """

    org_id: str | None
    first: Day
    last: Day
    in_one: int
    by_day: int


@dataclass
class DayAnswers:
    """What is known about one day. `calls` is its share of the questions: one about ten days counts 0.1 for each.

    `how` says for each id in `counts` how its count is known. `others` has the sessions of ids that nobody asks about,
    as the list of sessions has them; None is no id at all.
    """

    day: Day
    control_total: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    how: dict[str, How] = field(default_factory=dict)
    others: dict[str | None, int] = field(default_factory=dict)
    refused: dict[str, Exception] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)
    calls: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether the day can be stored: no question about it failed, though organizations may be refused."""
        return self.control_total is not None and not self.failures

    @property
    def cells(self) -> Cells:
        """Its known cells, by how they came to be known."""
        number = Counter(self.how.values())
        zeros = sum(self.counts[id_] == 0 for id_ in self.known_by("derived"))
        return Cells(number["asked"], number["derived"] - zeros, zeros, number["listed"])

    def known_by(self, *hows: How) -> set[str]:
        """The ids whose counts are known in one of these ways."""
        return {id_ for id_, how in self.how.items() if how in hows}

    @property
    def rest(self) -> int:
        """The control total minus the sum of the known cells."""
        return (self.control_total or 0) - sum(self.counts.values())
