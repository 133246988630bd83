"""The rows of the benchmark's table, and how they are printed."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from tests.bench.world import World

screen = Console(stderr=True)


@dataclass
class Row:
    """One row of the table. `is_met` is None where the target doesn't apply."""

    what: str
    to_reach: str
    measured: str
    is_met: bool | None
    notes: list[str] = field(default_factory=list)
    is_wrong: bool = False


def describe(world: World) -> str:
    """The size of a world, for the table."""
    shares = {1 / 3: "1/3", 1 / 8: "1/8"}
    return f"{world.orgs:,} orgs, {world.days} days, {shares[world.nonzero]} non-zero"


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """All measured values and their median."""
    if len(values) == 1:
        return f"once, {values[0]:{form}}"
    return f"median {statistics.median(values):{form}}, all " + ", ".join(f"{v:{form}}" for v in values)


def show(rows: Sequence[Row]) -> None:
    """Print the table on standard output."""
    table = Table("what", "to reach", "measured")
    for row in rows:
        style = "red" if row.is_wrong else {True: "green", False: "yellow", None: ""}[row.is_met]
        table.add_row(row.what, row.to_reach, row.measured, style=style)
        for note in row.notes:
            table.add_row(f"  {note}", "", "", style="dim")
    Console(width=None if sys.stdout.isatty() else 140).print(table)
