"""Plays every fault against the real command and prints one table.

    python -m tests.faults [--quick] [--family NAME] [--name PART] [--seed N] [--database NAME] [--jobs N]

The exit code is 1 if anything was lost, doubled, wrong or silent, on a traceback, or if a fault did not fire.
"""

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor, as_completed

from rich.console import Console

from tests.faults.families import all_cases, play
from tests.faults.table import Verdict, show
from tests.support.postgresql import PostgreSQL


def main() -> int:
    """Play the requested cases and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--quick", action="store_true", help="only the cases that the tests also play")
    parser.add_argument("--family", choices=list(dict.fromkeys(case.family for case in all_cases(1))))
    parser.add_argument("--name", default="", help="only cases whose name contains this")
    parser.add_argument("--database", choices=("duckdb", "postgresql"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    wanted = {
        number: case
        for number, case in enumerate(all_cases(options.seed))
        if options.family in (None, case.family)
        and options.database in (None, case.database)
        and options.name in case.name
        and (case.is_quick or not options.quick)
    }
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as directory,
        contextlib.ExitStack() as on_exit,
    ):
        server = None
        if any(case.database == "postgresql" for case in wanted.values()):
            server = PostgreSQL(directory)
            on_exit.callback(server.server.stop)  # even after an interrupt
            server.disable_fsync()
        # Each worker is a process, so that its fork server and its sandbox share no interpreter with those of others.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
            played: dict[Future[Verdict], int] = {}
            for number, case in wanted.items():
                url = server.database() if server and case.database == "postgresql" else None
                played[pool.submit(play, number, options.seed, url)] = number
            verdicts = {}
            for done, future in enumerate(as_completed(played), 1):
                verdict = verdicts[played[future]] = future.result()
                console.print(
                    f"{done}/{len(played)} {verdict.family}/{verdict.name}: {verdict.seconds:.1f} s, "
                    f"{len(verdict.problems) or 'no'} problems",
                    markup=False,
                    soft_wrap=True,
                )
    ordered = [verdicts[number] for number in sorted(verdicts)]
    show(ordered, Console(width=None if sys.stdout.isatty() else 140))
    return 1 if any(verdict.problems for verdict in ordered) else 0


if __name__ == "__main__":
    sys.exit(main())
