"""How things look on a terminal: the progress of a load, tables, sentences. Or in a log, as one JSON object a line."""

import json
import time
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Any
from unicodedata import category

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from pipelines.command.probe import Finding
from pipelines.command.status import Run, Schedule
from pipelines.loading.progress import Progress, WaitLines
from resources.outage import Waiting
from warehouse.dimensions import Dimension
from warehouse.reads import Coverage, DayState

MAX_WIDTH = 10_000  # where no screen sets an end to a line

out = Console()
err = Console(stderr=True)


class _Log:
    is_json = False


def speak(*, in_json: bool) -> None:
    """From now on say everything in JSON, or else in sentences."""
    _Log.is_json = in_json
    if in_json:
        warnings.showwarning = _warn


def say(sentence: str, event: str = "said", /, **fields: Any) -> None:
    """One line for people, on standard output; never taken for markup, never broken in the middle of a word.

    `event`, a name that stays, and `fields` are for programs: JSON alone has them.
    """
    _write(out, "info", sentence, event, fields)


def complain(sentence: str, event: str, /, **fields: Any) -> None:
    """What went wrong and what to do, on standard error."""
    _write(err, "error", sentence, event, fields)


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    _write(err, "warning", f"{category.__name__}: {message}", "warning", {})


def _write(console: Console, level: str, sentence: str, event: str, fields: Mapping[str, Any]) -> None:
    if not _Log.is_json:
        console.print(_told(sentence), soft_wrap=True)
        return
    console.file.write(_as_json(level, sentence, event, fields))
    console.file.flush()


def _as_json(level: str, sentence: str, event: str, fields: Mapping[str, Any]) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": now, "level": level, "event": event, "message": sentence, **fields}
    return json.dumps(line, default=str) + "\n"


def last_words() -> str:
    """The line for standard error when a signal ends the process."""
    sentence = "Interrupted. What is stored is kept. To go on, run the same command again."
    return _as_json("error", sentence, "interrupted", {}) if _Log.is_json else f"{sentence}\n"


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table for people: numbers to the right, NULL dimmed; where it is too wide, names break at their underscores."""
    rows = list(rows)
    table = _table(title, columns, rows)
    if not out.is_terminal:
        Console(width=MAX_WIDTH).print(table)
    elif out.measure(table, options=out.options.update(max_width=MAX_WIDTH)).maximum <= out.width:
        out.print(table)
    else:
        names = [name.replace("_", "_\n") for name in columns]
        out.print(_table(title, names, rows, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], **options: Any) -> Table:
    table = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", **options)
    for index, name in enumerate(columns):
        is_number = any(isinstance(row[index], int | float) and not isinstance(row[index], bool) for row in rows)
        table.add_column(_told(name), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("NULL", style="dim") if value is None else Text(printable(shown(value))) for value in row))
    return table


def show_coverage(covered: Coverage, dimension: Dimension) -> None:
    """How much is loaded and proven of the counts per organization, or per user."""
    rows = [
        ("days", f"{covered.first_day} to {covered.last_day}"),
        ("days loaded", f"{covered.days_loaded:,} of {covered.days_expected:,}"),
        ("days reconciled with the source's total", f"{covered.days_reconciled:,} of {covered.days_loaded:,}"),
        (dimension.plural, f"{covered.counted:,}"),
        ("sessions", f"{covered.sessions_count:,}"),
        ("last loaded", f"{covered.last_loaded_at:%Y-%m-%d %H:%M} UTC" if covered.last_loaded_at else "never"),
    ]
    show_table("", [f"per {dimension.noun}", ""], rows)


_MARKS: dict[DayState, tuple[str, str, str]] = {
    "proven": ("■", "green", "loaded and proven"),
    "unattributed": ("▲", "yellow", "loaded, sessions unattributed"),
    "contradiction": ("✗", "bold red", "loaded, contradicted by the source"),
    "partial": ("◧", "magenta", "loaded in part"),
    "missing": ("·", "red", "missing"),
}


def show_calendar(days: Mapping[date, DayState]) -> None:
    """A row a month and a mark a day; below it what the marks mean that occur."""
    months: dict[str, dict[int, DayState]] = {}
    for day, state in days.items():
        months.setdefault(f"{day:%Y-%m}", {})[day.day] = state
    for month, of_month in months.items():
        line = Text(f"  {month}  ")
        for number in range(1, 32):
            mark, style, _ = _MARKS[of_month[number]] if number in of_month else (" ", "", "")
            line.append(mark, style=style)
        out.print(line, soft_wrap=True)
    legend = Text("           ")
    for state, (mark, style, meaning) in _MARKS.items():
        if number := sum(of_day == state for of_day in days.values()):
            legend.append(mark, style=style).append(f" {meaning} ({number:,})  ")
    out.print(legend, soft_wrap=True)


def show_runs(runs: Sequence[Run], schedule: Schedule, next_tick: datetime) -> None:
    """The last runs, and when the schedule asks for the next."""
    rows = [
        (
            f"{run.started_at:%Y-%m-%d %H:%M} UTC" if run.started_at else "not yet",
            run.days,
            run.outcome,
            "" if run.seconds is None else f"{run.seconds:,.0f} s",
        )
        for run in runs
    ]
    if rows:
        show_table("Last runs", ["began", "days", "outcome", "took"], rows)
    at = f"Next run: {next_tick:%Y-%m-%d %H:%M %Z}"
    say(
        {
            "running": f"{at}.",
            "not running": f"{at}, if the schedule runs by then. It does not now: start devin-sessions ui or, on a "
            "server, the service of the daemon.",
            "unknown": f"{at}, if the schedule runs by then.",
            "switched off": "Next run: none, the schedule is switched off. Switch it on in the Dagster UI: Automation.",
        }[schedule]
    )


_STYLES = {"good": "green", "note": "yellow", "bad": "bold red", "unknown": "magenta"}


def show_findings(findings: Iterable[Finding]) -> None:
    """What a probe found: the verdict, and under each question what was seen and what to do."""
    table = Table(title="The source", title_justify="left", title_style="bold", header_style="bold", show_lines=True)
    for name in ("verdict", "question", "seen", "advice"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        table.add_row(verdict, *map(_told, (finding.question, finding.seen, finding.advice)))
    out.print(table)


def _told(sentences: str) -> Text:
    return Text(printable(sentences, but="\n"))


def printable(text: str, *, but: str = "") -> str:
    """`text` in which what a terminal would act on, or not show, is an escape like `\\x1b`.

    What makes text run the other way and what has no width are among that. All spaces stay, and what is in `but`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in but or category(c) == "Zs" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def shown(value: object) -> str:
    """A value as people write it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.3f}" if isinstance(value, float) else as_text(value)


def as_text(value: object) -> str:
    """A value as other programs read it: true and false as in SQL, NULL as nothing."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


class LiveProgress(Progress):
    """A moving bar on a terminal, else a plain line for each block of days; a context manager."""

    def __enter__(self) -> "LiveProgress":
        self.began = time.monotonic()
        self._last_stored: date | None = None
        self._wait_lines = WaitLines(lambda waiting: say(str(waiting), "waiting", until=waiting.until_at))
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("cells · {task.fields[calls]} calls · {task.fields[rate]}/s ·"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=out,
            disable=_Log.is_json or not out.is_terminal,
        )
        self._bars.start()
        self._bar = self._bars.add_task("Starting", total=None, calls="0", rate="0")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def changed(self) -> None:
        """Move the bar."""
        self._bars.update(
            self._bar,
            description=self._doing,
            total=self.cells_expected,
            completed=self.cells,
            calls=f"{self.calls.sent:,}",
            rate=f"{self.calls.sent / max(self.seconds, 0.001):,.0f}",
        )

    @property
    def _doing(self) -> str:
        if self.calls.waiting:
            return escape(printable(str(self.calls.waiting)))
        return f"{self._last_stored} stored" if self._last_stored else "Asking"

    def waiting(self, waiting: Waiting) -> None:
        """Show it beside the bar, or say so where no bar can move."""
        if self._bars.disable:
            self._wait_lines(waiting)
        else:
            self._bars.update(self._bar, description=self._doing)

    def stored(self, days: Collection[date]) -> None:
        """Show the last of them, on a line of its own where no bar can move."""
        self._last_stored = max([*days, *filter(None, [self._last_stored])], default=None)
        super().stored(days)
        if self._bars.disable and days:
            left = (self.cells_expected - self.cells) * self.seconds / max(self.cells, 1)
            say(
                f"{max(days)} stored: {self.cells:,} of {self.cells_expected:,} cells, {self.calls.sent:,} calls, "
                f"{self.calls.sent / max(self.seconds, 0.001):,.0f}/s, {left:,.0f} s left",
                "progress",
                last_day=max(days),
                cells=self.cells,
                cells_expected=self.cells_expected,
                calls=self.calls.sent,
                seconds=round(self.seconds, 3),
                seconds_left=round(left, 3),
            )
