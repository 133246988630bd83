"""What the list of sessions has on the days of one run, so that the counts per user don't read it a second time."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipelines.loading.answers import DayAnswers
from pipelines.partitions import Day
from warehouse.dimensions import Dimension

Listed = Counter[str | None]
"""The sessions of each id on one day; None: of no id."""


@dataclass
class ListedDays:
    """Keeps, for each dimension that has yet to be loaded in a run, the sessions of each id on each day.

    It holds ids and numbers alone. Whoever takes them proves them again. `service_users` are those of the listed ids
    that are service users; None if the API doesn't say.
    """

    service_users: set[str] | None = None
    _run_id: str = ""
    _awaited: set[Dimension] = field(default_factory=set)
    _days: dict[Dimension, dict[Day, tuple[int | None, Listed]]] = field(default_factory=dict)

    @contextmanager
    def during_load(self, run_id: str, dimension: Dimension, dimensions: Collection[Dimension]) -> Iterator[None]:
        """While a run loads one of its `dimensions`: drop what other runs listed, and afterwards its own share."""
        if run_id != self._run_id:
            self._run_id, self._awaited, self._days, self.service_users = run_id, {*dimensions}, {}, None
        self._awaited.discard(dimension)
        try:
            yield
        finally:
            self._days.pop(dimension, None)

    @property
    def awaited(self) -> Collection[Dimension]:
        """The dimensions for which days are kept."""
        return self._awaited

    def keep(self, dimension: Dimension, answers: Sequence[DayAnswers], listed: Sequence[Listed]) -> None:
        """Keep the sessions of these days, which were listed completely."""
        kept = self._days.setdefault(dimension, {})
        kept.update({a.day: (a.control_total, of_day) for a, of_day in zip(answers, listed, strict=True)})

    def find(self, dimension: Dimension, answers: Sequence[DayAnswers]) -> list[Listed] | None:
        """The sessions of these days if they were all listed and their control totals are still the same."""
        kept = self._days.get(dimension, {})
        found = [kept.get(a.day, (None, Listed())) for a in answers]
        is_same = all(
            total is not None and total == a.control_total for a, (total, _) in zip(answers, found, strict=True)
        )
        return [listed for _, listed in found] if is_same else None

    def distrust(self) -> None:
        """Forget every day, since the list was seen to misplace sessions."""
        self._days = {}
