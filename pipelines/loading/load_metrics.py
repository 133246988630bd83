"""What a load took and what it brought, in numbers: for Dagster, the command's closing lines and its JSON."""

from array import array
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.loading.collect import Cells
from pipelines.loading.progress import Progress
from resources.devin_api import Calls
from warehouse.writes import Changes


@dataclass(frozen=True)
class Numbers:
    """Those of one or more loads. `after - before` are the numbers of what happened in between.

    `calls` are HTTP requests, `outcomes` how many of them ended with which status, or why with none. `latencies` are
    the seconds of each answer, `waited_seconds` is for how long any question was held back to keep to a rate limit.
    Cells, changes, sessions and unattributed sessions are those of the `days` that were stored.
    """

    days: int
    sessions: int
    unattributed: int
    cells: Cells
    changes: Changes
    calls: int
    outcomes: Counter[str]
    retries: int
    waited_seconds: float
    latencies: "array[float]"
    seconds: float

    @classmethod
    def of(cls, progress: Progress) -> "Numbers":
        """The numbers so far."""
        calls = progress.calls
        return cls(
            len(progress.stored),
            progress.sessions,
            progress.unattributed,
            progress.known,
            progress.changes,
            calls.sent,
            calls.outcomes.copy(),
            calls.retried,
            calls.waited,
            calls.latencies[:],
            progress.seconds,
        )

    def __sub__(self, before: "Numbers") -> "Numbers":
        return Numbers(
            self.days - before.days,
            self.sessions - before.sessions,
            self.unattributed - before.unattributed,
            self.cells - before.cells,
            self.changes - before.changes,
            self.calls - before.calls,
            self.outcomes - before.outcomes,
            self.retries - before.retries,
            self.waited_seconds - before.waited_seconds,
            self.latencies[len(before.latencies) :],
            self.seconds - before.seconds,
        )

    def fields(self) -> dict[str, Any]:
        """All of them by name, fit for JSON. What nobody answered has no latency."""
        return {
            "days": self.days,
            "sessions": self.sessions,
            "unattributed": self.unattributed,
            "cells": self.cells.known,
            **{f"cells_{how}": number for how, number in asdict(self.cells).items()},
            **{f"rows_{change}": number for change, number in asdict(self.changes).items()},
            "calls": self.calls,
            "calls_by_outcome": dict(sorted(self.outcomes.items())),
            "retries": self.retries,
            "waited_seconds": round(self.waited_seconds, 3),
            **{f"latency_{name}_ms": value for name, value in self._latencies().items()},
            "seconds": round(self.seconds, 3),
        }

    def sentences(self) -> list[str]:
        """A line about the calls and one about the cells, beside what the closing line says."""
        outcomes = ", ".join(f"{outcome} ({number:,})" for outcome, number in sorted(self.outcomes.items()))
        latencies = ", ".join(f"{value:,.0f} ms ({name})" for name, value in self._latencies().items())
        return [
            f"Calls by outcome: {outcomes or 'none'}; {f'answered in {latencies}; ' if latencies else ''}"
            f"{self.waited_seconds:,.1f} s waited for the source.",
            f"Cells: {self.cells.asked:,} asked, {self.cells.derived:,} derived, {self.cells.proven_zero:,} proven "
            f"zero; {self.unattributed:,} sessions unattributed.",
        ]

    def _latencies(self) -> dict[str, float]:
        calls = Calls(latencies=self.latencies)
        shares = {"median": calls.latency(0.5), "p95": calls.latency(0.95), "p99": calls.latency(0.99)}
        return {name: round(seconds * 1000, 3) for name, seconds in shares.items() if seconds is not None}
