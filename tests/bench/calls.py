"""Measures the calls of a load: how many, how well they overlap, and how they keep to a rate limit."""

from tests.bench.processes import checked, load
from tests.bench.sizes import Sizes
from tests.bench.source import Source
from tests.bench.table import Row, describe, spread

LATENCY = 0.05
CONNECTIONS = 16


def calls(sizes: Sizes) -> list[Row]:
    """How many calls a cell costs, including those for the list of organizations."""
    rows = []
    for nonzero, limit in ((1 / 3, 0.60), (1 / 8, 0.36)):
        world = sizes.world(sizes.ratio, nonzero)
        with Source(world, latency=0) as it:
            run = load(world, it)
        cells = world.orgs * world.days
        ratio = run.seen.calls / cells
        row = Row(
            f"calls ÷ cells, {describe(world)}",
            f"≤ {limit:.2f}",
            f"{ratio:.3f}",
            ratio <= limit,
            [f"{run.seen.calls:,} calls, {cells:,} cells, {run.seen.repeated:,} asked twice"],
        )
        rows.append(checked(row, [run]))
    return rows


def asking(sizes: Sizes) -> list[Row]:
    """How busy the connections are kept, from the first session call to the last response."""
    world = sizes.world(sizes.whole)
    with Source(world, latency=LATENCY) as it:
        runs = [load(world, it, CONNECTIONS) for _ in range(sizes.times)]
    ratios = [run.seen.seconds / (run.seen.session_calls * LATENCY / CONNECTIONS) for run in runs]
    row = Row(
        f"time of asking ÷ (calls · latency ÷ connections), {describe(world)}, {CONNECTIONS} connections, 50 ms",
        "≤ 1.30",
        f"{min(ratios):.2f}",
        min(ratios) <= 1.3,
        [
            spread(ratios),
            f"{runs[0].seen.session_calls:,} calls in {min(run.seen.seconds for run in runs):.1f} s",
        ],
    )
    return [checked(row, runs)]


def limit(sizes: Sizes) -> list[Row]:
    """A rate limit of 200 requests a second that the job doesn't know of."""
    allowed = 200
    world = sizes.world(sizes.ratio, 1 / 8)
    with Source(world, latency=LATENCY, limit=allowed) as it:
        run = load(world, it)
    useful = run.seen.session_calls - run.seen.refused
    ratio = run.seen.seconds / (useful / allowed)
    refused = run.seen.refused / run.seen.calls
    what = f"source limited to {allowed}/s, {describe(world)}"
    return [
        checked(Row(f"{what}: counts that are wrong", "0", f"{run.wrong:,}", run.wrong == 0), [run]),
        Row(
            f"{what}: time ÷ (answered calls ÷ limit)",
            "≤ 1.25",
            f"{ratio:.2f}",
            ratio <= 1.25,
            [f"{useful:,} answered calls in {run.seen.seconds:.1f} s"],
        ),
        Row(f"{what}: 429s ÷ calls", "≤ 5 %", f"{refused:.1%}", refused <= 0.05, [f"{run.seen.refused:,} of them"]),
    ]
