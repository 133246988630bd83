"""Measures the calls of a load: how many, how well they overlap, and how they keep to a rate limit."""

from tests.bench.processes import checked, load, script
from tests.bench.sizes import Sizes
from tests.bench.source import Source
from tests.bench.table import Row, describe, spread

LATENCY = 0.05
CONNECTIONS = 16


def calls(sizes: Sizes) -> list[Row]:
    """How many calls a cell costs, including those for the list of organizations, without and with that of sessions."""
    rows = []
    for nonzero, limit, limit_with_list in ((1 / 3, 0.60, 0.065), (1 / 8, 0.36, 0.05)):
        world = sizes.world(sizes.ratio, nonzero)
        for lists_sessions in (False, True):
            with Source(world, latency=0, lists_sessions=lists_sessions) as it:
                loaded = load(world, it)
            cells = world.orgs * world.days
            ratio, most = loaded.seen.calls / cells, limit_with_list if lists_sessions else limit
            row = Row(
                f"calls ÷ cells, {describe(world)}" + (", with the list of sessions" if lists_sessions else ""),
                f"≤ {most:.3f}" if lists_sessions else f"≤ {most:.2f}",
                f"{ratio:.3f}",
                ratio <= most,
                [f"{loaded.seen.calls:,} calls, {cells:,} cells, {loaded.seen.repeated:,} asked twice"],
            )
            rows.append(checked(row, [loaded]))
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
        asked = load(world, it)
    useful = asked.seen.session_calls - asked.seen.refused
    ratio = asked.seen.seconds / (useful / allowed)
    refused = asked.seen.refused / asked.seen.calls
    what = f"source limited to {allowed}/s, {describe(world)}"
    with Source(world, latency=LATENCY, limit=allowed, lists_sessions=True) as it:
        ours = [load(world, it) for _ in range(sizes.times)]
        theirs = [script(world, it, "--list") for _ in range(sizes.times)]
    seconds, compared = [run.seconds for run in ours], [run.seconds for run in theirs]
    return [
        checked(Row(f"{what}: counts that are wrong", "0", f"{asked.wrong:,}", asked.wrong == 0), [asked]),
        Row(
            f"{what}: time ÷ (answered calls ÷ limit)",
            "≤ 1.25",
            f"{ratio:.2f}",
            ratio <= 1.25,
            [f"{useful:,} answered calls in {asked.seen.seconds:.1f} s"],
        ),
        Row(f"{what}: 429s ÷ calls", "≤ 5 %", f"{refused:.1%}", refused <= 0.05, [f"{asked.seen.refused:,} of them"]),
        checked(
            Row(
                f"{what}, with the list of sessions: whole backfill, s",
                "≤ 10.4",
                f"{min(seconds):.1f}",
                min(seconds) <= 10.4,
                [
                    f"{spread(seconds, '.1f')}; {ours[0].seen.calls:,} calls, {ours[0].seen.refused:,} refused",
                    f"a script that pages through the list and proves nothing: {spread(compared, '.1f')}",
                ],
            ),
            [*ours, *theirs],
        ),
    ]
