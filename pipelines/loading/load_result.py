"""The outcome of one load or of several, day by day."""

from dataclasses import dataclass, field
from datetime import date
from functools import reduce
from operator import add

from pipelines.loading.load_metrics import LoadMetrics
from pipelines.partitions import format_days


@dataclass
class LoadResult:
    """What became of the days of a load. Stored days stay stored, however the load ends.

    `stored` has the numbers of each stored day, `missing` the reason for each day that could not be read completely.
    `found` days were loaded by another run before their turn came. `lacking` are the ids without a count on a stored
    day, because the API refused to count them. `contradictions` and `warnings` are sentences.
    """

    stored: dict[date, LoadMetrics] = field(default_factory=dict)
    missing: dict[date, Exception] = field(default_factory=dict)
    found: set[date] = field(default_factory=set)
    lacking: dict[date, set[str]] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> LoadMetrics:
        """The sum of the stored days. Their calls are shares; `LoadMetrics.of_calls` counts all calls."""
        return reduce(add, self.stored.values(), LoadMetrics())

    @property
    def complete(self) -> set[date]:
        """The days that are loaded with a count for every id."""
        return ({*self.stored} | self.found) - self.lacking.keys()

    def record(self, day: date, metrics: LoadMetrics) -> None:
        """Record that `day` was stored; if it was before, add the numbers of this later reading."""
        self.missing.pop(day, None)
        self.stored[day] = self.stored[day].then(metrics) if day in self.stored else metrics

    def set_lacking(self, day: date, ids: set[str]) -> None:
        """Record the `ids` that the API refused to count on a stored day; an empty set if none is lacking any more."""
        self.lacking.pop(day, None)
        if ids:
            self.lacking[day] = ids

    def describe_missing(self) -> str:
        """The missing days and the reasons, one line per kind of failure; empty if no day is missing."""
        if not self.missing:
            return ""
        reasons: dict[str, list[date]] = {}
        for day, error in self.missing.items():
            reasons.setdefault(type(error).__name__, []).append(day)
        lines = [f"{format_days(days)}: {self.missing[days[0]]}" for days in reasons.values()]
        return "\n".join([f"Not loaded: {format_days(sorted(self.missing))}. Everything else is stored.", *lines])

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
