"""What came of one load or of several, day by day."""

from dataclasses import dataclass, field
from datetime import date
from functools import reduce
from operator import add

from pipelines.loading.load_metrics import LoadMetrics


@dataclass
class LoadResult:
    """What became of the days of a load. What is stored stays stored, whatever ends the load.

    `stored` has the numbers of each day that it stored, `missing` the reason for each that it could not read whole.
    `found` days were loaded by another run before their turn came. `lacking` are the ids without a count on a day that
    is stored, because the API refused to count them. `contradictions` and `warnings` are sentences.
    """

    stored: dict[date, LoadMetrics] = field(default_factory=dict)
    missing: dict[date, Exception] = field(default_factory=dict)
    found: set[date] = field(default_factory=set)
    lacking: dict[date, set[str]] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> LoadMetrics:
        """The sum of the stored days. Calls are shares of days; see `LoadMetrics.of_calls` for all of them."""
        return reduce(add, self.stored.values(), LoadMetrics())

    @property
    def complete(self) -> set[date]:
        """The days that are loaded for everyone who is to be counted."""
        return ({*self.stored} | self.found) - self.lacking.keys()

    def store(self, day: date, metrics: LoadMetrics) -> None:
        """`day` is stored; by a second reading, if it was before."""
        self.missing.pop(day, None)
        self.stored[day] = self.stored[day].then(metrics) if day in self.stored else metrics

    def lacks(self, day: date, ids: set[str]) -> None:
        """The API refused to count `ids` on a day that is stored; none if all are there now."""
        self.lacking.pop(day, None)
        if ids:
            self.lacking[day] = ids

    def __add__(self, later: "LoadResult") -> "LoadResult":
        complete = later.complete
        return LoadResult(
            self.stored | later.stored,
            {day: error for day, error in self.missing.items() if day not in complete} | later.missing,
            self.found | later.found,
            {day: ids for day, ids in self.lacking.items() if day not in complete} | later.lacking,
            self.contradictions + later.contradictions,
            self.warnings + later.warnings,
        )
