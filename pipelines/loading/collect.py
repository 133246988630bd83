"""Which questions to ask for a block of days and organizations, and what the answers add up to.

Pure: it gets a function that counts, and knows nothing of HTTP, Dagster or SQL. What is said about organizations
applies to users as well. `collect_direct` asks for every cell. `collect_differenced` asks for totals first and derives
the cells: the last part of a split is the rest, and a total of zero leaves nothing to ask. `collect_listed` takes the
cells from the list of sessions and proves them by totals. In any case, each day's cells are compared with the API's own
total for that day, and the days with its own total for all of them in one question.
"""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pipelines.loading.answers import DayAnswers, Errors
from pipelines.loading.block import Block, Count
from pipelines.loading.listed import ListVerdict, Proposal, accept
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


async def collect_listed(
    count: Count,
    days: Sequence[Day],
    org_ids: Sequence[str],
    *,
    before: Day,
    expected: Mapping[str, float],
    propose: Callable[[Sequence[DayAnswers]], Awaitable[Proposal | None]],
    judged: Callable[[ListVerdict], None],
    sampled: int,
    dice: random.Random,
    workers: Workers,
    errors: Errors,
    answered: Callable[[], None],
    may_proceed: Callable[[], Awaitable[object]],
) -> list[DayAnswers]:
    """Ask for the control totals, take the cells from the list of sessions, and prove them by totals.

    `propose` gets the days with their control totals, and returns the sessions of each id on each day, or None if there
    is no list for them or it would cost more than it saves. `judged` is called with what became of it. Without a
    proposal, or with one that can't be proven, the block is asked for as in `collect_differenced`. `sampled` further
    totals, chosen by `dice`, are compared. The rest is as in `collect_differenced`.
    """
    block = Block(count, days, org_ids, before, workers, errors, answered)
    await block.ask_control_totals()
    await may_proceed()
    are_known = len(block.with_control_total()) == len(days)
    if are_known and (proposal := await propose(block.answers)) is not None:
        verdict = await accept(block, proposal, most=len(days) * len(org_ids) // 4, sampled=sampled, dice=dice)
        judged(verdict)
        if verdict is ListVerdict.PROVEN:
            await prove(block, is_split=True)
            return block.answers
    weights = {org_id: expected[org_id] * len(days) for org_id in org_ids if org_id in expected}
    still_open = groups(sorted(block.open_ids()), weights)
    await block.ask_all(block.total_of(group) for group in still_open)
    await split(block)
    await prove(block, is_split=True)
    return block.answers
