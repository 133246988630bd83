"""Days that are over by this machine's clock, but not by the API's: their counts are not final, and none is stored."""

from collections.abc import Iterable

from pipelines.partitions import Day, format_days
from resources.outage import format_duration
from resources.source_clock import SourceClock


class ClockAhead(Exception):
    """This machine's clock is ahead of the API's, and a day to be loaded is not over. The message is for the user."""


def refuse_open_days(days: Iterable[Day], clock: SourceClock) -> None:
    """Raise ClockAhead if one of these days is not over by the API's clock."""
    if not clock.ahead:
        return
    now = clock.now()
    still_open = [day for day in days if day.end > now]
    if still_open:
        raise ClockAhead(
            f"Not over yet by the API's clock: {format_days([day.day for day in still_open])}. There it is "
            f"{now:%Y-%m-%d %H:%M:%S} UTC, and the last of these days ends at {still_open[-1].end:%Y-%m-%d %H:%M:%S} "
            f"UTC. By this machine's clock it is {now + clock.ahead:%Y-%m-%d %H:%M:%S} UTC, "
            f"{format_duration(clock.ahead.total_seconds())} ahead. None of these days was stored. Have whoever "
            "runs this machine set its clock, for example with timedatectl set-ntp true."
        )
