"""Another process that reads a database file, as an analyst's tool would."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Analyst:
    """Another process that keeps one file open and runs one query at a time."""

    running: subprocess.Popen[str]

    def sees(self, sql: str) -> list[list[Any]]:
        return self._send(["query", sql])

    def reopens(self) -> None:
        assert self._send(["reopen"]) == []

    def _send(self, request: list[str]) -> list[list[Any]]:
        assert self.running.stdin and self.running.stdout
        self.running.stdin.write(json.dumps(request) + "\n")
        self.running.stdin.flush()
        rows: list[list[Any]] = json.loads(self.running.stdout.readline())
        return rows


@contextmanager
def analyst(database: Path) -> Iterator[Analyst]:
    code = (
        "import duckdb, json, sys\n"
        "connection = duckdb.connect(sys.argv[1], read_only=True)\n"
        "for line in sys.stdin:\n"
        "    what, *sql = json.loads(line)\n"
        "    if what == 'reopen':\n"
        "        connection.close()\n"
        "        connection = duckdb.connect(sys.argv[1], read_only=True)\n"
        "    print(json.dumps(connection.execute(sql[0]).fetchall() if sql else []), flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield Analyst(running)
        finally:
            running.kill()
