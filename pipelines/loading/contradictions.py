"""In which words a load says that the API contradicts itself."""

from collections.abc import Collection, Sequence
from datetime import date

from pipelines.loading.answers import Contradiction
from pipelines.partitions import spelled
from warehouse.dimensions import Dimension


def off_its_block(found: Contradiction) -> str:
    """Days that do not add up to the API's own count of all of them."""
    whose = f" of {found.org_id}" if found.org_id else ""
    return (
        f"The API contradicts itself: it counts {found.in_one:,} sessions{whose} from {found.first.day} to "
        f"{found.last.day} in one question, but {found.by_day:,} day by day, and did so twice. The counts are stored "
        "and marked as a contradiction in the view reconciliation. Run devin-sessions probe to find out why, such as a "
        "wrong DEVIN_WINDOW_END, then read the days again: "
        f"devin-sessions backfill {found.first.day} {found.last.day} --refresh"
    )


def exceeding_the_total(dimension: Dimension, days: Sequence[date]) -> str:
    """Organizations, or users, that add up to more than the API's own total of the day."""
    return (
        f"The API contradicts itself: on {spelled(days)} the {dimension.plural} add up to more sessions than its own "
        "total of the day. The counts are stored and marked as a contradiction in the view reconciliation. Run "
        "devin-sessions probe to find out why, then read the days again: "
        f"devin-sessions backfill {days[0]} {days[-1]} --refresh"
    )


def older_than_the_total(dimension: Dimension, days: Sequence[date], ids: Collection[str]) -> str:
    """The same, because of counts that are older than the total and can't be read again."""
    return (
        f"On {spelled(days)} the {dimension.plural} add up to more sessions than the API's own total of the day. The "
        f"stored counts of {', '.join(sorted(ids))} are older than that total, and the API refuses to count them now, "
        "as it may after a deletion. They are kept, and the view reconciliation marks these days. If nothing was "
        "deleted, let the key count them, then read the days again: "
        f"devin-sessions backfill {days[0]} {days[-1]} --refresh"
    )
