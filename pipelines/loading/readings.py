"""Converts a day's answers to what the warehouse stores."""

from collections.abc import Collection

from pipelines.loading.answers import DayAnswers
from warehouse.unattributed import Others
from warehouse.writes import Contradiction, Reading


def as_reading(
    answers: DayAnswers, *, expected: int, lacking: int, service_users: Collection[str] | None = None
) -> Reading:
    """What is stored for a day that was read completely; `lacking` of the `expected` ids have no count on it.

    `service_users` are those of the listed ids that are service users; None if the API doesn't say.
    """
    assert answers.control_total is not None, "a day without a control total is not complete"
    return Reading(
        day=answers.day.day,
        window_start=answers.day.start,
        window_end=answers.day.end,
        control_total=answers.control_total,
        counts=answers.counts,
        how=answers.how,
        expected=expected,
        lacking=lacking,
        contradictions=[
            Contradiction(found.org_id, found.first.day, found.last.day, found.in_one, found.by_day)
            for found in answers.contradictions
        ],
        others=Others(answers.others, service_users),
    )
