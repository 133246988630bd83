"""What the report says of the quality of the data: a mark for each check, and the worst of them in one line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import dagster as dg

from pipelines.checks import Verdict
from pipelines.report.activity import RESTATED_DAYS, Activity
from pipelines.report.sections import UNKNOWN


@dataclass(frozen=True)
class Mark:
    """One line about the quality of the data: about what, how it stands, and in which words."""

    title: str
    kind: str
    sentence: str

    @property
    def spelled(self) -> str:
        return {"good": "✓ passed", "warn": "! warning", "bad": "✗ failed", "none": UNKNOWN}[self.kind]


def quality(shown: Activity, verdicts: Iterable[tuple[str, Verdict]]) -> list[Mark]:
    """A mark for each check, as Dagster would give it; none if there is nothing yet that could be wrong."""
    marks = []
    for title, verdict in verdicts:
        if verdict.passed:
            kind = "good" if shown.last_loaded else "none"
        else:
            kind = "warn" if verdict.severity is dg.AssetCheckSeverity.WARN else "bad"
        marks.append(
            Mark(title, kind, verdict.sentence if kind != "none" else "Nothing is loaded that could be checked.")
        )
    restated = (
        f"{shown.restated:,} counts were changed in the last {RESTATED_DAYS} days, by {shown.restated_by:+,} sessions "
        "together; session_revisions has both values of each."
        if shown.restated
        else f"No stored count was changed in the last {RESTATED_DAYS} days."
    )
    return [*marks, Mark("Restatements", "none", restated)] if shown.last_loaded else marks


def worst(marks: Sequence[Mark]) -> Mark:
    """One line for all of them: the worst, and how many are as bad."""
    for kind, verb in (("bad", "failed"), ("warn", "gave a warning")):
        found = [mark for mark in marks if mark.kind == kind]
        if found:
            checks = f"{len(found)} check{'s' if len(found) > 1 else ''} {verb}"
            return Mark(checks, kind, ", ".join(mark.title for mark in found))
    passed = [mark for mark in marks if mark.kind == "good"]
    return Mark(f"all {len(passed)} checks passed", "good", "") if passed else Mark("nothing to check yet", "none", "")
