"""Output for people (progress, tables, sentences), or for a log, as one JSON object per line."""

import gc
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unicodedata import category

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipelines.command import interrupts

if TYPE_CHECKING:  # importing it takes seconds, and help needs none of it
    from pipelines.command.findings import Finding

WIDE = 100  # columns; a table of sentences needs as many
MAX_WIDTH = 10_000  # characters, where no terminal limits the length of a line

out = Console()
err = Console(stderr=True)


class _Log:
    is_json = False


def set_output(*, json_lines: bool) -> None:
    """From now on, print JSON lines, or sentences."""
    _Log.is_json = json_lines
    if json_lines:
        warnings.showwarning = _warn


def is_json() -> bool:
    """Whether the output is JSON lines."""
    return _Log.is_json


def say(sentence: str, event: str = "said", /, **fields: Any) -> None:
    """Print a sentence to standard output. It is never parsed as markup. On a terminal, its lines break at words.

    JSON goes to standard error, so that standard output has nothing but a command's result.
    `event`, a name that never changes, and `fields` are for programs: only JSON has them.
    """
    _write(err if _Log.is_json else out, "info", sentence, event, fields)


def complain(sentence: str, event: str, /, **fields: Any) -> None:
    """Print what went wrong and what to do to standard error."""
    _write(err, "error", sentence, event, fields)


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    _write(err, "warning", f"{category.__name__}: {message}", "warning", {})


def _write(console: Console, level: str, sentence: str, event: str, fields: Mapping[str, Any]) -> None:
    if not _Log.is_json:
        lines = wrapped(sentence, console.width) if console.is_terminal else sentence
        console.print(_as_rich_text(lines), soft_wrap=True)
        return
    console.file.write(_as_json(level, sentence, event, fields))
    console.file.flush()


_UNBROKEN = "\ue000"  # stands for a space at which no line may break; as wide as one
_COMMAND = re.compile(r"devin-sessions [a-z]+(?: (?:--[a-z-]+|[0-9]{4}-[0-9W-]+|FIRST|LAST|DAY)\b)*")


def wrapped(sentences: str, width: int) -> str:
    """Break lines between words so that they fit `width`, except for indented lines and inside commands, to copy."""
    lines = []
    for line in sentences.split("\n"):
        if line.startswith(" "):
            lines.append(line)
            continue
        parts: list[str] = []
        for word in _COMMAND.sub(lambda command: command[0].replace(" ", _UNBROKEN), line).split(" "):
            if parts and cell_len(f"{parts[-1]} {word}") <= width:
                parts[-1] += f" {word}"
            else:
                parts.append(word)
        lines += [part.replace(_UNBROKEN, " ") for part in parts]
    return "\n".join(lines)


@contextmanager
def starting_dagster() -> Iterator[None]:
    """Say so while the block imports it, which takes seconds, to a person at a terminal."""
    is_shown = err.is_terminal and not _Log.is_json
    if is_shown:
        err.file.write("Starting Dagster...")
        err.file.flush()
    # What is imported stays, so Python need not look for garbage in it, now or later: a fifth of a night's CPU.
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        if is_shown:
            err.file.write("\r\x1b[K")
            err.file.flush()
    interrupts.set_last_words(last_words)


def _as_json(level: str, sentence: str, event: str, fields: Mapping[str, Any]) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": now, "level": level, "event": event, "message": sentence, **fields}
    return json.dumps(line, default=str) + "\n"


def first_words() -> str:
    """The line to print to standard error when a signal ends the process before it has done anything."""
    return _words("Interrupted before anything was done.")


def last_words() -> str:
    """The same for when it may have."""
    return _words("Interrupted. What is stored is kept. To continue, run the same command again.")


def _words(sentence: str) -> str:
    return _as_json("error", sentence, "interrupted", {}) if _Log.is_json else f"{sentence}\n"


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table for people.

    If it is too wide for the terminal, the columns' names break at their underscores, and texts between words. If a
    number, a date or a word would have to break too, each value gets a line of its own.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    table = _table(title, columns, cells)
    if not out.is_terminal:
        Console(width=MAX_WIDTH).print(table)
        return
    names = [name.replace("_", "_\n") for name in columns]
    narrow = _table(title, names, cells, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    unlimited = out.options.update(max_width=MAX_WIDTH)
    if out.measure(table, options=unlimited).maximum <= out.width:
        out.print(table)
    elif out.measure(narrow, options=unlimited).minimum <= out.width:
        out.print(narrow)
    else:
        _show_records(title, columns, cells)


_NUMBER = re.compile(r"-?[0-9][0-9,]*(\.[0-9]+)?(e[-+]?[0-9]+)?|-?inf(inity)?|nan", re.IGNORECASE)


def _is_value(text: str) -> bool:
    """Whether the text may be a number, a date, a time or an interval, which no line breaks."""
    return text.lstrip("-")[:1].isdecimal()


def _cell(value: object) -> Text:
    return Text("NULL", style="dim") if value is None else Text(printable(format_value(value)))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Text]], **options: Any) -> Table:
    table = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", **options)
    for index, name in enumerate(columns):
        texts = [row[index].plain for row in rows if row[index].plain != "NULL"]
        is_number = bool(texts) and all(map(_NUMBER.fullmatch, texts))
        # A text without a space is a name or an id.
        is_whole = any(map(_is_value, texts)) or not any(" " in text for text in texts)
        table.add_column(
            _as_rich_text(name),
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=is_whole,
            min_width=max(map(cell_len, texts), default=0) if is_whole else None,
        )
    for row in rows:
        table.add_row(*row)
    return table


def _show_records(title: str, columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    if title:
        out.print(Text(title, style="bold"))
    names = [printable(name) for name in columns]
    width = max(map(cell_len, names), default=0) + 2
    for number, row in enumerate(rows, start=1):
        out.print(Text(f"row {number}", style="dim"))
        for name, value in zip(names, row, strict=True):
            line = Text.assemble((f"{name}{' ' * (width - cell_len(name))}", "bold"), value)
            if line.cell_len <= out.width:
                out.print(line)
                continue
            out.print(Text(name, style="bold"))
            if _is_value(value.plain):
                out.print(value, soft_wrap=True)
            else:
                out.print(Padding(value, (0, 0, 0, 2)))


_STYLES = {"good": "green", "note": "yellow", "bad": "bold red", "unknown": "magenta"}


def show_findings(findings: "Iterable[Finding]") -> None:
    """Print what a probe found: for each question the verdict, what was seen and what to do."""
    if out.is_terminal and out.width < WIDE:
        for finding in findings:
            out.print(Text(finding.verdict, style=_STYLES[finding.verdict]), _as_rich_text(finding.question))
            for sentence in filter(None, (finding.seen, finding.advice)):
                out.print(Padding(_as_rich_text(sentence), (0, 0, 0, 2)))
        return
    table = Table(title="The API", title_justify="left", title_style="bold", header_style="bold", show_lines=True)
    for name in ("verdict", "question", "seen", "advice"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        table.add_row(verdict, *map(_as_rich_text, (finding.question, finding.seen, finding.advice)))
    out.print(table)


def _as_rich_text(sentences: str) -> Text:
    return Text(printable(sentences, keep="\n"))


def printable(text: str, *, keep: str = "") -> str:
    """`text` with every character that a terminal would act on, or not show, as an escape like `\\x1b`.

    That includes characters that reverse the direction of text or have no width. Spaces and those in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep or category(c) == "Zs" else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def format_value(value: object) -> str:
    """A value as people write it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.3f}" if isinstance(value, float) else as_text(value)


def as_text(value: object) -> str:
    """A value as other programs read it: true and false as in SQL, NULL as an empty text."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
