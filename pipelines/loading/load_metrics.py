"""The numbers of a load, what it cost and what it brought: for Dagster, the closing lines, JSON and OpenTelemetry.

A new number is a field here, set where it is counted.
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from pipelines.loading.answers import Cells
from resources.calls import Calls
from warehouse.writes import Changes

# In seconds, as OpenTelemetry's semantic conventions advise for the durations of HTTP requests.
_HTTP_DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


@dataclass(frozen=True)
class Instrument:
    """How a number is sent as the OpenTelemetry metric `devin.sessions.<name>`, in a UCUM unit.

    An up-down counter may decrease. `attribute` is the attribute by which a number is split, if it is. `boundaries` are
    those of a histogram's buckets; None leaves them to the SDK.
    """

    name: str
    unit: str
    description: str
    kind: Literal["counter", "up_down_counter", "histogram"] = "counter"
    attribute: str = ""
    boundaries: Sequence[float] | None = None


def _sent_as(*instrument: Any, **more: Any) -> dict[str, Instrument]:
    return {"instrument": Instrument(*instrument, **more)}


@dataclass(frozen=True)
class LoadMetrics:
    """The numbers of one load, of several, or of one of its days. They add up; `after - before` is what lies between.

    `calls` are HTTP requests; for one day, its share of them. `outcomes` counts them by status, or by the reason why
    there was no response. `latencies` are the seconds that each response took, `waited_seconds` is how long a rate
    limit held requests back. Cells, changes, sessions and unattributed sessions are those of the stored `days`.
    """

    days: int = field(default=0, metadata=_sent_as("days", "{day}", "Days that were stored."))
    sessions: int = field(
        default=0, metadata=_sent_as("counted", "{session}", "Sessions of those days, by the API's own total.")
    )
    unattributed: int = field(
        default=0,
        # Below zero where the API contradicts itself, which a counter would drop.
        metadata=_sent_as("unattributed", "{session}", "Of these, sessions that are in no count.", "up_down_counter"),
    )
    cells: Cells = field(
        default_factory=Cells,
        metadata=_sent_as(
            "cells", "{cell}", "Counts that were stored or confirmed, by how they were obtained.", attribute="how"
        ),
    )
    changes: Changes = field(
        default_factory=Changes,
        metadata=_sent_as("rows", "{row}", "Rows of counts, by what the load did to them.", attribute="change"),
    )
    calls: float = 0
    outcomes: Counter[str] = field(
        default_factory=Counter,
        metadata=_sent_as(
            "calls", "{call}", "Requests to the API, by status or why there was none.", attribute="outcome"
        ),
    )
    retries: int = field(default=0, metadata=_sent_as("retries", "{call}", "Requests that were retries."))
    waited_seconds: float = field(
        default=0.0, metadata=_sent_as("limit.wait", "s", "Time for which a rate limit held requests back.")
    )
    latencies: "array[float]" = field(
        default_factory=lambda: array("d"),
        metadata=_sent_as(
            "call.duration", "s", "From a request to its response.", "histogram", boundaries=_HTTP_DURATIONS
        ),
    )
    seconds: float = field(
        default=0.0, metadata=_sent_as("load.duration", "s", "From the first request to the last row.", "histogram")
    )

    @classmethod
    def of_calls(cls, calls: Calls, seconds: float) -> "LoadMetrics":
        """The numbers of all requests so far, which took `seconds`."""
        return cls(
            calls=calls.sent,
            outcomes=calls.outcomes.copy(),
            retries=calls.retried,
            waited_seconds=calls.waited,
            latencies=calls.latencies[:],
            seconds=seconds,
        )

    def __add__(self, other: "LoadMetrics") -> "LoadMetrics":
        return LoadMetrics(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __sub__(self, before: "LoadMetrics") -> "LoadMetrics":
        return LoadMetrics(
            **{f.name: _difference(getattr(self, f.name), getattr(before, f.name)) for f in fields(self)}
        )

    def then(self, later: "LoadMetrics") -> "LoadMetrics":
        """The numbers of a day that was stored by this reading and again by a `later` one."""
        return replace(self + later, days=later.days, sessions=later.sessions, unattributed=later.unattributed)

    def as_fields(self) -> dict[str, Any]:
        """All of them by name, ready for JSON. Without any response there are no latencies."""
        return {
            "days": self.days,
            "sessions": self.sessions,
            "unattributed": self.unattributed,
            "cells": self.cells.known,
            **self._by_kind(),
            "calls": self.calls,
            "calls_by_outcome": dict(sorted(self.outcomes.items())),
            "retries": self.retries,
            "waited_seconds": round(self.waited_seconds, 3),
            **{f"latency_{name}_ms": value for name, value in self._latencies().items()},
            "seconds": round(self.seconds, 3),
        }

    def as_fields_of_a_day(self) -> dict[str, float]:
        """The numbers of one day, under the names of its columns if it has them."""
        return {
            "sessions_count": self.sessions,
            "unattributed_count": self.unattributed,
            "calls": round(self.calls, 2),
            **self._by_kind(),
        }

    def sentences(self, cells_noun: str) -> list[str]:
        """One line about the calls and one about the cells, named `cells_noun`, in addition to the closing line."""
        outcomes = ", ".join(f"{outcome} ({number:,})" for outcome, number in sorted(self.outcomes.items()))
        listed = f", {self.cells.listed:,} listed and proven" if self.cells.listed else ""
        latencies = ", ".join(f"{value:,.0f} ms ({name})" for name, value in self._latencies().items())
        return [
            f"Calls by outcome: {outcomes or 'none'}; {f'answered in {latencies}; ' if latencies else ''}"
            f"{self.waited_seconds:,.1f} s waited for the API.",
            f"{cells_noun.capitalize()}: {self.cells.asked:,} asked, {self.cells.derived:,} derived, "
            f"{self.cells.proven_zero:,} proven zero{listed}; {self.unattributed:,} sessions unattributed.",
        ]

    def measurements(self) -> list[tuple[Instrument, Sequence[tuple[float, Mapping[str, str]]]]]:
        """The numbers that are sent as metrics: instrument, values and their attributes."""
        found: list[tuple[Instrument, Sequence[tuple[float, Mapping[str, str]]]]] = []
        for f in fields(self):
            instrument: Instrument | None = f.metadata.get("instrument")
            if instrument:
                found.append((instrument, _values(getattr(self, f.name), instrument.attribute)))
        return found

    def _by_kind(self) -> dict[str, int]:
        cells, changes = asdict(self.cells), asdict(self.changes)
        return {f"cells_{how}": n for how, n in cells.items()} | {f"rows_{what}": n for what, n in changes.items()}

    def _latencies(self) -> dict[str, float]:
        calls = Calls(latencies=self.latencies)
        shares = {"median": calls.latency(0.5), "p95": calls.latency(0.95), "p99": calls.latency(0.99)}
        return {name: round(seconds * 1000, 3) for name, seconds in shares.items() if seconds is not None}


def _difference(after: Any, before: Any) -> Any:
    return after[len(before) :] if isinstance(after, array) else after - before


def _values(number: Any, attribute: str) -> list[tuple[float, Mapping[str, str]]]:
    if attribute:
        parts = number if isinstance(number, Counter) else asdict(number)
        return [(value, {attribute: part}) for part, value in parts.items()]
    return [(value, {}) for value in (number if isinstance(number, array) else [number])]
