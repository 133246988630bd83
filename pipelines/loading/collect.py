"""Which questions to ask for a block of days and organizations, and what the answers add up to.

Pure: it gets a function that counts, and knows nothing of HTTP, Dagster or SQL. What is said about organizations
applies to users as well. `collect_direct` asks for every cell. `collect_differenced` asks for totals first and derives
the cells: the last part of a split is the rest, and a total of zero leaves nothing to ask. Either way, each day's cells
are compared with the API's own total for that day, and the days with its own total for all of them in one question.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from pipelines.loading.answers import DayAnswers, Errors
from pipelines.loading.block import Block, Count
from pipelines.loading.proving import prove
from pipelines.loading.splitting import groups, split
from pipelines.loading.workers import Workers
from pipelines.partitions import Day


async def collect_direct(
    count: Count,
    days: Sequence[Day],
    org_ids: Sequence[str],
    *,
    before: Day,
    workers: Workers,
    errors: Errors,
    answered: Callable[[], None],
    may_proceed: Callable[[], Awaitable[object]],
) -> list[DayAnswers]:
    """Ask for each day's control total, then for each cell, then for the total of all days in one question.

    A day without a control total costs no further question. `answered` is called once per settled cell. `may_proceed`
    is awaited after the totals, which are a small part of the questions. A single day is compared together with the
    day `before` it.
    """
    block = Block(count, days, org_ids, before, workers, errors, answered)
    await block.ask_control_totals()
    await may_proceed()
    await block.ask_cells((of_day, org_id) for of_day in block.with_control_total() for org_id in org_ids)
    await prove(block, is_split=False)
    return block.answers


async def collect_differenced(
    count: Count,
    days: Sequence[Day],
    org_ids: Sequence[str],
    *,
    before: Day,
    expected: Mapping[str, float],
    workers: Workers,
    errors: Errors,
    answered: Callable[[], None],
    may_proceed: Callable[[], Awaitable[object]],
) -> list[DayAnswers]:
    """Ask for the control totals and each organization's total, and split those above zero until all cells are known.

    `expected` is the likely number of sessions per day of an organization, where it is known: quiet ones share a
    question. While the API is consistent, this takes at most cells + days + organizations questions, plus the two that
    compare the days with their total, whatever the data. Otherwise a second reading follows, which at most doubles
    them: derived cells are asked for directly, what still differs from the control total stays visible as the day's
    rest, and what still differs from the total of all days is a contradiction. `answered`, `before` and `may_proceed`
    are as in `collect_direct`.
    """
    block = Block(count, days, org_ids, before, workers, errors, answered)
    weights = {org_id: expected[org_id] * len(days) for org_id in org_ids if org_id in expected}
    await block.ask_control_totals(also=[block.total_of(group) for group in groups(org_ids, weights)])
    await may_proceed()
    await split(block)
    await prove(block, is_split=True)
    return block.answers
