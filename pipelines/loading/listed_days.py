"""What the list of sessions has on some days, so that the counts per user don't read it a second time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.loading.answers import DayAnswers
from pipelines.partitions import Day
from warehouse.dimensions import Dimension

Listed = Counter[str | None]
"""The sessions of each id on one day; None: of no id."""

MOST_COUNTS = 500_000
"""More of them are not kept. These are 500 days of a thousand users who have sessions every day, in 13 MB."""


@dataclass
class ListedDays:
    """Keeps the sessions of each id on each listed day for a dimension that is loaded after another, in one process.

    It holds only ids and numbers, and each day only until it is taken. Whoever takes a day proves it again.
    `service_users` are those of the listed ids that are service users; None if the API doesn't say.
    """

    service_users: set[str] | None = None
    _days: dict[tuple[Dimension, Day], tuple[int | None, Listed]] = field(default_factory=dict)
    _counts: int = 0

    def keep(self, dimension: Dimension, answers: Sequence[DayAnswers], listed: Sequence[Listed]) -> None:
        """Keep the sessions of these days, which were listed completely, while there is room."""
        for of_day, sessions in zip(answers, listed, strict=True):
            self._drop(dimension, of_day.day)
            if self._counts + len(sessions) <= MOST_COUNTS:
                self._days[dimension, of_day.day] = of_day.control_total, sessions
                self._counts += len(sessions)

    def has(self, dimension: Dimension, answers: Sequence[DayAnswers]) -> bool:
        """Whether all of these days were listed, and their control totals are still the same."""
        kept = [self._days.get((dimension, of_day.day)) for of_day in answers]
        return all(found and found[0] == of_day.control_total for found, of_day in zip(kept, answers, strict=True))

    def take(self, dimension: Dimension, answers: Sequence[DayAnswers]) -> list[Listed] | None:
        """The sessions of these days, none of which is kept any longer; None if there is one that it doesn't have."""
        taken = self.has(dimension, answers)
        found = [self._drop(dimension, of_day.day) for of_day in answers]
        return found if taken else None

    def distrust(self) -> None:
        """Forget every day, since the list was seen to misplace sessions."""
        self._days.clear()
        self._counts = 0

    def _drop(self, dimension: Dimension, day: Day) -> Listed:
        _, sessions = self._days.pop((dimension, day), (None, Listed()))
        self._counts -= len(sessions)
        return sessions
