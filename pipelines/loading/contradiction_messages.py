"""The messages that report where the API contradicts itself."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from datetime import date

from pipelines.loading.answers import Contradiction
from pipelines.partitions import format_days
from warehouse.dimensions import Dimension


def sentences(
    dimension: Dimension, found: Iterable[Contradiction], exceeding: Set[date], older: Mapping[date, Set[str]]
) -> list[str]:
    """What to report about a load: contradictions, days that exceed their total, and those with `older` counts."""
    reported = list(dict.fromkeys(map(off_its_block, found)))
    if older:
        reported.append(older_than_the_total(dimension, sorted(older), frozenset[str]().union(*older.values())))
    if others := exceeding - older.keys():
        reported.append(exceeding_the_total(dimension, sorted(others)))
    return reported


def off_its_block(found: Contradiction) -> str:
    """For days that do not add up to the API's own count of all of them."""
    whose = f" of {found.org_id}" if found.org_id else ""
    return (
        f"The API contradicts itself: it counts {found.in_one:,} sessions{whose} from {found.first.day} to "
        f"{found.last.day} in one question, but {found.by_day:,} day by day, and did so twice. The counts are stored "
        "and marked as a contradiction in the view reconciliation. Run devin-sessions probe to find out why, such as a "
        "wrong DEVIN_WINDOW_END, then read the days again: "
        f"devin-sessions backfill {found.first.day} {found.last.day} --refresh"
    )


def exceeding_the_total(dimension: Dimension, days: Sequence[date]) -> str:
    """For days on which organizations, or users, add up to more than the API's own total."""
    return (
        f"The API contradicts itself: on {format_days(days)} the {dimension.plural} add up to more sessions than its "
        "own total of the day. The counts are stored and marked as a contradiction in the view reconciliation. Run "
        "devin-sessions probe to find out why, then read the days again: "
        f"devin-sessions backfill {days[0]} {days[-1]} --refresh"
    )


def older_than_the_total(dimension: Dimension, days: Sequence[date], ids: Collection[str]) -> str:
    """For the same days, if the reason is counts of `ids` that are older than the total and can't be read again."""
    return (
        f"On {format_days(days)} the {dimension.plural} add up to more sessions than the API's own total of the day. "
        f"The stored counts of {', '.join(sorted(ids))} are older than that total, and the API refuses to count them "
        "now, as it may after a deletion. They are kept, and the view reconciliation marks these days. If nothing was "
        "deleted, grant the key access to them, then read the days again: "
        f"devin-sessions backfill {days[0]} {days[-1]} --refresh"
    )
