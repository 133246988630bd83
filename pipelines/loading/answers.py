"""What is known about the days of one block: cells, control totals, contradictions. Pure."""

from dataclasses import dataclass, field

from pipelines.partitions import Day


@dataclass(frozen=True)
class Errors:
    """Which exceptions leave only some cells open; any other ends the block.

    `refusals` are final and concern the organizations in the question; `temporary` ones may not occur on a retry.
    """

    refusals: tuple[type[Exception], ...]
    temporary: tuple[type[Exception], ...]


@dataclass(frozen=True)
class Cells:
    """How many cells are known, and how: `asked` for directly, or inferred from other answers.

    Inferred cells are `proven_zero` if a total left nothing for them, otherwise `derived`.
    """

    asked: int = 0
    derived: int = 0
    proven_zero: int = 0

    @property
    def known(self) -> int:
        """The number of all known cells."""
        return self.asked + self.derived + self.proven_zero

    def __add__(self, other: "Cells") -> "Cells":
        return Cells(self.asked + other.asked, self.derived + other.derived, self.proven_zero + other.proven_zero)

    def __sub__(self, other: "Cells") -> "Cells":
        return Cells(self.asked - other.asked, self.derived - other.derived, self.proven_zero - other.proven_zero)


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
    """What is known about one day. `calls` is its share of the questions: one about ten days counts 0.1 for each."""

    day: Day
    control_total: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    derived: set[str] = field(default_factory=set)
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
        zeros = sum(self.counts[id_] == 0 for id_ in self.derived)
        return Cells(len(self.counts) - len(self.derived), len(self.derived) - zeros, zeros)

    @property
    def rest(self) -> int:
        """The control total minus the sum of the known cells."""
        return (self.control_total or 0) - sum(self.counts.values())
