"""Measures what the project promises about its speed, and prints one table.

    python -m tests.bench [--quick] [--seed N] [NAME …]

Times depend on the machine, so they decide nothing: the exit code is 1 only if a measurement crashed or a stored count
is wrong.
"""

import argparse
import sys
import time
import traceback
from importlib import import_module

from tests.bench.sizes import Sizes
from tests.bench.table import Row, screen, show

MODULES = {
    "source": "throughput",
    "calls": "calls",
    "asking": "calls",
    "client": "throughput",
    "backfill": "backfills",
    "limit": "calls",
    "several": "several",
    "turns": "turns",
    "kills": "kills",
    "platform": "clusters",
    "memory": "backfills",
    "kill": "backfills",
    "upsert": "upserts",
    "writers": "upserts",
    "failing": "records",
    "nightly": "nights",
    "night": "first_night",
    "analysts": "analysts",
    "ui": "screens",
}
"""The function of each measurement, in order, and its module.

A module is imported when it is needed: some import much, and this process's memory counts in `memory`.
"""


def _measure(name: str, sizes: Sizes) -> tuple[list[Row], bool]:
    """The rows of one measurement, and whether they are sound: no crash and no wrong count."""
    began = time.monotonic()
    try:
        rows: list[Row] = getattr(import_module(f"tests.bench.{MODULES[name]}"), name)(sizes)
    except Exception as error:
        screen.print(f"{name} failed:", style="red")
        screen.print(traceback.format_exc(), markup=False, highlight=False)
        return [Row(name, "", f"crashed: {type(error).__name__}", None, is_wrong=True)], False
    screen.print(f"{name}: {time.monotonic() - began:.0f} s", style="dim")
    return rows, not any(row.is_wrong for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure what the project promises about its speed."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"what to measure, by default everything: {', '.join(MODULES)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="measure smaller sizes once; the targets are for the full sizes"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the invented sessions and of when to kill")
    options = parser.parse_args()
    unknown = set(options.names) - set(MODULES)
    if unknown:
        parser.error(f"unknown name: {', '.join(sorted(unknown))}")
    sizes = Sizes.quick(options.seed) if options.quick else Sizes(options.seed)
    results = [_measure(name, sizes) for name in options.names or MODULES]
    show([row for rows, _ in results for row in rows])
    return 0 if all(is_sound for _, is_sound in results) else 1


if __name__ == "__main__":
    sys.exit(main())
