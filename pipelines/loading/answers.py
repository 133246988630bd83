"""What the answers of one collection are kept in: cells, days, contradictions. Pure."""

from dataclasses import dataclass, field

from pipelines.partitions import Day


@dataclass(frozen=True)
class Errors:
    """Which exceptions leave only some cells open; any other ends the collection.

    `refusals` are about the organizations in the question and final, `passing` may be gone another time.
    """

    refusals: tuple[type[Exception], ...]
    passing: tuple[type[Exception], ...]


@dataclass(frozen=True)
class Cells:
    """How many cells are known, and how: `asked` themselves, or following from answers about others.

    Those that follow are `proven_zero` where a total left nothing for them, else `derived`.
    """

    asked: int = 0
    derived: int = 0
    proven_zero: int = 0

    @property
    def known(self) -> int:
        """All of them."""
        return self.asked + self.derived + self.proven_zero

    def __add__(self, other: "Cells") -> "Cells":
        return Cells(self.asked + other.asked, self.derived + other.derived, self.proven_zero + other.proven_zero)

    def __sub__(self, other: "Cells") -> "Cells":
        return Cells(self.asked - other.asked, self.derived - other.derived, self.proven_zero - other.proven_zero)


@dataclass(frozen=True)
class Contradiction:
    """The source counts `in_one` sessions from `first` to `last` asked as one window, but `by_day` day by day.

    Seen in two readings, one after the other. `org_id` is None where no organization was named.
    """

    org_id: str | None
    first: Day
    last: Day
    in_one: int
    by_day: int


@dataclass
class DayAnswers:
    """What is known of one day. `calls` is its share of the questions: one about ten days counts a tenth on each."""

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
        """Whether the day can be stored: no question about it is open, though organizations may be refused for good."""
        return self.control_total is not None and not self.failures

    @property
    def cells(self) -> Cells:
        """How its cells came to be known."""
        zeros = sum(self.counts[id_] == 0 for id_ in self.derived)
        return Cells(len(self.counts) - len(self.derived), len(self.derived) - zeros, zeros)

    @property
    def rest(self) -> int:
        """The control total minus the cells."""
        return (self.control_total or 0) - sum(self.counts.values())
