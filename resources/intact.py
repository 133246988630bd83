"""Checks that a DuckDB file can be read in full: every row, and every index that a query may use.

DuckDB verifies the checksum of a block only when it reads the block. A block in the wrong place passes that check and
can hang or crash DuckDB, so the file is read in a process of its own.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import duckdb

from resources.identifiers import quoted

_SECONDS, _SECONDS_PER_MEGABYTE = 60.0, 0.5  # reading takes 0.001 s per megabyte, and the keys 0.1 s
_LAST = {"keys", "problem"}  # which lines are the last of an answer
# On Linux, what this process runs, even if its path was replaced by an upgrade or is in a directory that only root may
# search.
_THIS_PYTHON = "/proc/self/exe"


@dataclass(frozen=True)
class Found:
    """What could be read of a file: its `whole` tables, and why each of the `damaged` ones could not be read.

    `problem` says why the file could not be opened; `keys_problem` why rows can't be found or changed by their keys,
    although they can be read.
    """

    whole: frozenset[str] = frozenset()
    damaged: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    keys_problem: str = ""

    @property
    def why(self) -> str:
        """DuckDB's first error, in one line; empty if the file is intact."""
        return self.problem or next(iter(self.damaged.values()), "") or self.keys_problem


class Reader:
    """Reads files in full, one after another, in a process of its own that starts at once, as a context manager."""

    def __enter__(self) -> Self:
        self._child = self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def read(self, path: Path, *, with_keys: bool = False) -> Found:
        """Read the whole file at `path`. Raises OSError.

        `with_keys` also reads the indexes of multi-column keys, which only writers use. That takes 7 s per million
        rows and deletes everything in the file: give it a copy.
        """
        patience = _SECONDS + path.stat().st_size / 1e6 * _SECONDS_PER_MEGABYTE
        child, late = self._child, threading.Event()

        def give_up() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(patience, give_up)
        timer.start()
        try:
            lines = list(_answer(child, [str(path), with_keys]))
        finally:
            timer.cancel()
        end = ""
        if not lines or not lines[-1].keys() & _LAST:
            self._stop()
            self._child = self._start()  # for the next file
            end = (
                f"DuckDB did not finish reading it within {patience:.0f} s"
                if late.is_set()
                else f"DuckDB exited with code {child.returncode} while reading it"
            )
        return _found(lines, end)

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        # In a session of its own: Ctrl-C is for the caller, which then ends this process.
        return subprocess.Popen(
            [sys.executable, "-m", __name__],
            executable=_THIS_PYTHON if Path(_THIS_PYTHON).exists() else None,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _stop(self) -> None:
        self._child.kill()
        with suppress(BrokenPipeError):
            self._child.communicate()


def _answer(child: subprocess.Popen[bytes], question: list[object]) -> Iterator[dict[str, Any]]:
    """The lines of the answer, up to its last one or to the end of the child."""
    assert child.stdin and child.stdout
    with suppress(BrokenPipeError):  # it has ended, and so does its output
        child.stdin.write(json.dumps(question).encode() + b"\n")
        child.stdin.flush()
    for line in child.stdout:
        if line.endswith(b"\n"):
            answer = json.loads(line)
            yield answer
            if answer.keys() & _LAST:
                return


def _found(lines: list[dict[str, Any]], end: str) -> Found:
    """What these lines say; `end` is why there are no more, if the child did not finish."""
    if not lines or "problem" in lines[0]:
        return Found(problem=lines[0]["problem"] if lines else end)
    reasons = dict.fromkeys(lines[0]["tables"], end) | {line["table"]: line["why"] for line in lines if "table" in line}
    damaged = {table: why for table, why in reasons.items() if why}
    keys_problem = next((line["keys"] for line in lines if "keys" in line), end)
    return Found(frozenset(reasons.keys() - damaged.keys()), damaged, keys_problem=keys_problem)


def main() -> None:
    """Run in the process that reads. Reads one question per line, a path and `with_keys`, and writes its answer."""
    for line in sys.stdin.buffer:
        _read(*json.loads(line))


def _read(path: str, with_keys: bool) -> None:
    """Write one JSON object per line: the tables, then each table, then the keys; or the problem."""
    options: dict[str, Any] = {"autoinstall_known_extensions": "false", "enable_external_access": "false"}
    try:
        connection = duckdb.connect(path, read_only=not with_keys, config=options)
        tables = connection.execute(
            "select schema_name, table_name from duckdb_tables() order by estimated_size, table_name"
        ).fetchall()
    except duckdb.Error as error:
        _emit(problem=_in_one_line(error))
        return
    with connection:
        _emit(tables=[_label(*table) for table in tables])
        # Makes DuckDB look up every row of a table in its index.
        connection.execute("set index_scan_percentage = 1.0")
        connection.execute("set index_scan_max_count = 9223372036854775807")
        for table in tables:
            _emit(table=_label(*table), why=_problem(_read_rows, connection, *table))
        keys = _problem(_read_by_keys, connection, tables)
        if with_keys:
            keys = keys or _problem(_delete_by_keys, connection, tables)
    _emit(keys=keys)


def _problem(read: Callable[..., None], *arguments: object) -> str:
    """DuckDB's error if `read` fails, in one line; else empty."""
    try:
        read(*arguments)
    except duckdb.Error as error:
        return _in_one_line(error)
    return ""


def _read_rows(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> None:
    table = connection.table(_qualified(schema, name))
    table.aggregate(f"bit_xor(hash({', '.join(map(quoted, table.columns))}))").fetchall()


def _read_by_keys(connection: duckdb.DuckDBPyConnection, tables: list[tuple[str, str]]) -> None:
    """Look up every row by its key, where that is a single column."""
    for schema, name in tables:
        table = connection.table(_qualified(schema, name))
        keys = connection.execute(
            "select constraint_column_names from duckdb_constraints() "
            "where schema_name = ? and table_name = ? and constraint_type = 'PRIMARY KEY' "
            "and len(constraint_column_names) = 1",
            [schema, name],
        ).fetchall()
        for ((key,),) in keys:
            lowest = table.min(quoted(key)).fetchone()
            if lowest and lowest[0] is not None:
                at_least = duckdb.ColumnExpression(key) >= duckdb.ConstantExpression(lowest[0])
                table.filter(at_least).aggregate("count(*)").fetchall()


def _delete_by_keys(connection: duckdb.DuckDBPyConnection, tables: list[tuple[str, str]]) -> None:
    for schema, name in tables:
        connection.execute(f"delete from {_qualified(schema, name)}")  # removes each row from each index on commit


def _label(schema: str, name: str) -> str:
    return name if schema == "main" else f"{schema}.{name}"


def _qualified(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"


def _in_one_line(error: duckdb.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _emit(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
