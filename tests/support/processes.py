"""Another process that does what a test says, a line each."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Process:
    """Another process that does as it is told, a line each."""

    running: subprocess.Popen[str]

    def do(self, statement: str) -> str:
        """Run one Python statement there; what it answers: `done`, or the error."""
        assert self.running.stdin and self.running.stdout
        self.running.stdin.write(f"{statement}\n")
        self.running.stdin.flush()
        return self.running.stdout.readline().strip()

    def ask(self, expression: str) -> str:
        """What a Python expression is there, or the error."""
        return self.do(f"={expression}")

    def open(self, path: Path) -> str:
        return self.do(f"connection = duckdb.connect({str(path)!r})")

    def close(self) -> str:
        return self.do("connection.close()")


@contextmanager
def another_process() -> Iterator[Process]:
    code = (
        "import sys, duckdb\n"
        "for line in sys.stdin:\n"
        "    try:\n"
        "        print(eval(line[1:]) if line[0] == '=' else exec(line) or 'done', flush=True)\n"
        "    except Exception as error:\n"
        "        print(str(error).splitlines()[0], flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield Process(running)
        finally:
            running.kill()
