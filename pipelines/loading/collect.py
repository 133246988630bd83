"""Which questions to ask for a block of days and organizations, and what the answers add up to.

Pure: it is handed a function that counts, and knows no HTTP, Dagster or SQL. Where users are counted, what is said
here of organizations holds for them. `direct` asks every cell itself.
`differenced` asks totals first and derives: the last part of a split is the rest, and nothing is left to ask where a
total is zero. Either way each day's cells are held against the source's own total for that day, and the days against
its own total for all of them in one question.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from pipelines.loading.answers import DayAnswers, Errors
from pipelines.loading.block import Block, Count
from pipelines.loading.proving import prove
from pipelines.loading.splitting import groups, split
from pipelines.loading.workers import Workers
from pipelines.partitions import Day


async def direct(
    count: Count,
    days: Sequence[Day],
    org_ids: Sequence[str],
    *,
    before: Day,
    workers: Workers,
    errors: Errors,
    answered: Callable[[], None],
    may_go_on: Callable[[], Awaitable[object]],
) -> list[DayAnswers]:
    """Ask each day's control total, then each cell itself, then the total of all days in one question.

    A day without a control total costs no further question. `answered` is called for each cell that is settled.
    `may_go_on` is awaited after the totals, which are a small part of the questions. A single day is asked together
    with the one `before` it.
    """
    block = Block(count, days, org_ids, before, workers, errors, answered)
    await block.ask_control_totals()
    await may_go_on()
    await block.ask_cells((of_day, org_id) for of_day in block.with_control_total() for org_id in org_ids)
    await prove(block, is_split=False)
    return block.answers


async def differenced(
    count: Count,
    days: Sequence[Day],
    org_ids: Sequence[str],
    *,
    before: Day,
    expected: Mapping[str, float],
    workers: Workers,
    errors: Errors,
    answered: Callable[[], None],
    may_go_on: Callable[[], Awaitable[object]],
) -> list[DayAnswers]:
    """Ask each day's control total and each organization's total, and split what is not zero until every cell is known.

    `expected` is how many sessions a day an organization is likely to have, where that is known: quiet ones share a
    question. While the source is consistent it is asked at most cells + days + organizations questions and the two that
    hold the days against their total, whatever the data. Else it is read a second time, with at most twice as many
    questions more: derived cells are asked themselves, what still differs from the control total stays visible as the
    day's rest, and what still differs from the total of all days is a contradiction. `before` and `may_go_on` are as in
    `direct`.
    """
    block = Block(count, days, org_ids, before, workers, errors, answered)
    weights = {org_id: expected[org_id] * len(days) for org_id in org_ids if org_id in expected}
    await block.ask_control_totals(also=[block.total_of(group) for group in groups(org_ids, weights)])
    await may_go_on()
    await split(block)
    await prove(block, is_split=True)
    return block.answers
