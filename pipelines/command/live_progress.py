"""The progress of a load on the screen: a bar on a terminal, otherwise a line for each block of days."""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from pipelines.command import screen
from pipelines.command.screen import WIDE, printable, say
from pipelines.loading.progress import Progress, WaitLines, is_worth_a_line
from resources.calls import Calls
from resources.outage import Waiting


def _columns(cells_noun: str, *, is_wide: bool) -> list[ProgressColumn]:
    what = [SpinnerColumn(), TextColumn("{task.description}")]
    number = [MofNCompleteColumn(), TextColumn(f"{cells_noun} · {{task.fields[calls]}} calls")]
    rest = [TextColumn("· {task.fields[rate]}/s ·"), TimeRemainingColumn(), TextColumn("left")]
    return [*what, BarColumn(), *number, *rest] if is_wide else [*what, *number]


class _BarsOrWait(Bars):
    """The bars, or while requests wait for long, a sentence about that in their place: beside them it is cut off."""

    def __init__(self, calls: Calls, *columns: ProgressColumn, console: Console, disable: bool) -> None:
        self._calls = calls
        super().__init__(*columns, console=console, disable=disable)

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is shown now."""
        waiting = self._calls.waiting
        if waiting and is_worth_a_line(waiting):
            return [Text(printable(str(waiting)))]
        return super().get_renderables()


@dataclass
class LiveProgress(Progress):
    """A progress bar on a terminal, otherwise a plain line for each block of days. A context manager.

    `cells_noun` is what it calls the cells.
    """

    cells_noun: str = "organization-days"

    def __enter__(self) -> "LiveProgress":
        self.began = time.monotonic()
        self._last_stored: date | None = None
        self._wait_lines = WaitLines(lambda waiting: say(str(waiting), "waiting", until=waiting.until_at))
        self._bars = _BarsOrWait(
            self.calls,
            *_columns(self.cells_noun, is_wide=screen.out.width >= WIDE),
            console=screen.out,
            disable=screen.is_json() or not screen.out.is_terminal,
        )
        self._bars.start()
        self._bar = self._bars.add_task("Starting", total=None, calls="0", rate="0")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.calls.waiting = None
        self._bars.stop()

    def changed(self) -> None:
        """Move the bar."""
        self._bars.update(
            self._bar,
            description=f"{self._last_stored} stored" if self._last_stored else "Requesting",
            total=self.cells_expected,
            completed=self.cells,
            calls=f"{self.calls.sent:,}",
            rate=f"{self.calls.sent / max(self.seconds, 0.001):,.0f}",
        )

    def waiting(self, waiting: Waiting) -> None:
        """Print a line if there is no bar, in whose place it would be shown."""
        if self._bars.disable:
            self._wait_lines(waiting)

    def held_up(self, sentence: str) -> None:
        """Print the sentence."""
        say(sentence, "held_up")

    def stored(self, days: Collection[date]) -> None:
        """Show the last of them next to the bar, or print a line if there is no bar."""
        self._last_stored = max([*days, *filter(None, [self._last_stored])], default=None)
        super().stored(days)
        if self._bars.disable and days:
            left = (self.cells_expected - self.cells) * self.seconds / max(self.cells, 1)
            say(
                f"{max(days)} stored: {self.cells:,} of {self.cells_expected:,} {self.cells_noun}, "
                f"{self.calls.sent:,} calls, {self.calls.sent / max(self.seconds, 0.001):,.0f}/s, {left:,.0f} s left",
                "progress",
                last_day=max(days),
                cells=self.cells,
                cells_expected=self.cells_expected,
                calls=self.calls.sent,
                seconds=round(self.seconds, 3),
                seconds_left=round(left, 3),
            )
