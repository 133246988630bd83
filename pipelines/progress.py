"""What a load tells whoever watches it: the numbers so far. How they look on a screen is in `cli`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from resources.devin_api import Calls
from warehouse.writes import Changes, StoredDay


@dataclass
class Progress:
    """The numbers of one or more loads. Override `changed` to show them."""

    cells_expected: int = 0
    cells: int = 0
    calls: Calls = field(default_factory=Calls)
    sessions: int = 0
    unattributed: int = 0
    changes: Changes = field(default_factory=Changes)
    stored: list[date] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def changed(self) -> None:
        """Called after every change of a number, from the thread that loads."""

    def expect(self, cells: int) -> None:
        """A load of this many cells begins."""
        self.cells_expected += cells
        self.changed()

    def answered(self) -> None:
        """A cell is known."""
        self.cells += 1
        self.changed()

    def store(self, days: Mapping[date, StoredDay], refused: Mapping[str, str]) -> None:
        """These days were stored; `refused` says why for organizations that the source does not count."""
        self.stored += days
        self.refused |= refused
        for day in days.values():
            self.sessions += day.sessions_count
            self.unattributed += day.unattributed_count
            self.changes += day.changes
        self.changed()
