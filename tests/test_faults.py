"""Some of the faults that `make proof` plays in full, against the real command, checked against the sandbox's truth."""

import pytest

from tests.faults.cases import Case
from tests.faults.families import all_cases

SEED = 1
# Of each family one on each database; `make proof PROOF=--quick` plays more, and `make proof` all.
QUICK = {(case.family, case.database): case for case in all_cases(SEED) if case.is_quick}


@pytest.mark.parametrize("case", QUICK.values(), ids=lambda case: f"{case.family}: {case.name}")
def test_nothing_is_lost_doubled_wrong_or_hidden_by(case: Case, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgresql").database() if case.database == "postgresql" else None
    assert case.run(SEED, url).problems == []
