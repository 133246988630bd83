"""The verdict on a case, and the table of all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

KINDS = ("lost", "doubled", "wrong", "silent", "tracebacks")

MOST_SHOWN = 6
"""The most problems printed for one case: one lost day means a problem for each of its cells."""


@dataclass
class Verdict:
    """What the oracle found in one case: sentences by kind, and in `fired` whether the fault happened at all."""

    family: str
    name: str
    fired: bool = False
    may_miss: bool = False
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    undetectable: str = ""
    calls: int = 0
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        """One sentence for each problem, with its kind."""
        missed = [] if self.fired or self.may_miss else ["not fired: the fault never happened"]
        return missed + [f"{kind}: {sentence}" for kind in KINDS for sentence in getattr(self, kind)]


def show(verdicts: Sequence[Verdict], console: Console) -> None:
    """Print the problems case by case, then a table with one row per family."""
    for verdict in verdicts:
        for problem in verdict.problems[:MOST_SHOWN]:
            console.print(f"{verdict.family}/{verdict.name}: {problem}", markup=False, soft_wrap=True)
        if len(verdict.problems) > MOST_SHOWN:
            console.print(f"{verdict.family}/{verdict.name}: {len(verdict.problems) - MOST_SHOWN} more of these")
    for verdict in verdicts:
        if verdict.undetectable:
            console.print(f"{verdict.family}/{verdict.name}: {verdict.undetectable}", markup=False, soft_wrap=True)
    table = Table()
    table.add_column("family")
    for name in ("cases", "fired", *KINDS, "calls", "seconds"):
        table.add_column(name, justify="right")
    for family in dict.fromkeys(verdict.family for verdict in verdicts):
        table.add_row(*_row(family, [verdict for verdict in verdicts if verdict.family == family]))
    table.add_section()
    table.add_row(*_row("all", verdicts))
    console.print(table)


def _row(name: str, verdicts: Sequence[Verdict]) -> Iterable[str]:
    fired = sum(verdict.fired for verdict in verdicts)
    hit = f"{fired} of {len(verdicts)}" if any(verdict.may_miss for verdict in verdicts) else f"{fired}"
    # A case counts once in a column, whatever the number of cells.
    found = (sum(bool(getattr(verdict, kind)) for verdict in verdicts) for kind in KINDS)
    calls, seconds = sum(v.calls for v in verdicts), sum(v.seconds for v in verdicts)
    return name, str(len(verdicts)), hit, *map(str, found), f"{calls:,}", f"{seconds:,.0f}"
