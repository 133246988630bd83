"""What the report says about data quality: a mark for each check, and the worst of them in one line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import dagster as dg

from pipelines.checks import Verdict
from pipelines.report.activity import RESTATED_DAYS, Activity
from pipelines.report.sections import UNKNOWN


@dataclass(frozen=True)
class Mark:
    """One line about data quality. `kind` is good, warn, bad or none, which are also the page's CSS classes."""

    title: str
    kind: str
    sentence: str

    @property
    def label(self) -> str:
        return {"good": "✓ passed", "warn": "! warning", "bad": "✗ failed", "none": UNKNOWN}[self.kind]


def quality_marks(shown: Activity, verdicts: Iterable[tuple[str, Verdict]]) -> list[Mark]:
    """A mark for each check, as Dagster shows it. While no day is loaded, a check that holds has the kind none."""
    marks = []
    for title, verdict in verdicts:
        if verdict.passed:
            kind = "good" if shown.last_loaded else "none"
        else:
            kind = "warn" if verdict.severity is dg.AssetCheckSeverity.WARN else "bad"
        marks.append(
            Mark(title, kind, verdict.sentence if kind != "none" else "Nothing is loaded yet, so nothing was checked.")
        )
    restated = (
        f"Counts that changed in the last {RESTATED_DAYS} days: {shown.restated:,}, by {shown.restated_by:+,} sessions "
        "in total. session_revisions has the old and the new value of each."
        if shown.restated
        else f"No stored count changed in the last {RESTATED_DAYS} days."
    )
    if not shown.last_loaded:
        return marks
    return [*marks, Mark("Restatements", "none", restated), Mark("How counts are known", "none", _how_known(shown))]


def _how_known(shown: Activity) -> str:
    ways = {
        "asked": "asked for one by one",
        "derived": "derived from totals",
        "listed": "taken from the list of sessions",
    }
    parts = ", ".join(f"{number:,} {way}" for how, way in ways.items() if (number := shown.known_by.get(how)))
    return f"Of {sum(shown.known_by.values()):,} counts: {parts}. Totals of the API itself must confirm each of them."


def worst(marks: Sequence[Mark]) -> Mark:
    """All of them in one line: how many checks have the worst result, and which."""
    for kind, verb in (("bad", "failed"), ("warn", "gave a warning")):
        found = [mark for mark in marks if mark.kind == kind]
        if found:
            checks = f"{len(found)} check{'s' if len(found) > 1 else ''} {verb}"
            return Mark(checks, kind, ", ".join(mark.title for mark in found))
    passed = [mark for mark in marks if mark.kind == "good"]
    return Mark(f"all {len(passed)} checks passed", "good", "") if passed else Mark("nothing to check yet", "none", "")
