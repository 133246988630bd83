"""The asset checks of the tables of counts: each claim about one is a check, and most are judged in one step."""

from collections.abc import Iterator, Sequence

import dagster as dg
import sqlalchemy as sa

from pipelines.asset_keys import asset_key
from pipelines.checks import Claim, Verdict, claims_of
from pipelines.failures import known_errors_fail_the_step
from pipelines.ledger import read
from pipelines.settings import Settings
from resources.database import Database
from warehouse.dimensions import Dimension


def checks_of(settings: Settings, dimension: Dimension) -> list[dg.AssetChecksDefinition]:
    """The checks of the asset that holds the cells of `dimension`, in one step for all that wait for the same assets.

    They then judge the same state of the warehouse, which is opened once.
    """
    claims = claims_of(dimension)
    return [
        _in_one_step(settings, dimension, also, [claim for claim in claims if claim.also == also])
        for also in dict.fromkeys(claim.also for claim in claims)
    ]


def _in_one_step(
    settings: Settings, dimension: Dimension, also: Sequence[str], claims: Sequence[Claim]
) -> dg.AssetChecksDefinition:
    asset = asset_key(settings, dimension.cells.name)
    waits_for = [asset_key(settings, name) for name in also]

    @dg.multi_asset_check(
        name="_".join([*asset.path, "checks", *also]),
        specs=[
            dg.AssetCheckSpec(claim.name, asset=asset, description=claim.description, additional_deps=waits_for or None)
            for claim in claims
        ],
        can_subset=True,
    )
    def checks(
        context: dg.AssetCheckExecutionContext,
        database: dg.ResourceParam[Database],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.AssetCheckResult]:
        selected = {key.name for key in context.selected_asset_check_keys}

        def judge(connection: sa.Connection) -> dict[str, Verdict]:
            return {c.name: c.judge(connection, dimension, settings) for c in claims if c.name in selected}

        with known_errors_fail_the_step():
            verdicts = read(database, judge)
        for name, verdict in verdicts.items():
            yield dg.AssetCheckResult(
                asset_key=asset,
                check_name=name,
                passed=verdict.passed,
                severity=verdict.severity,
                description=verdict.sentence,
                metadata=verdict.metadata,
            )

    return checks
