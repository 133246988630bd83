"""Some of the faults that `make proof` plays in full, against the real command, checked against the sandbox's truth."""

import pytest

from tests.faults.families import all_cases

SEED = 1
QUICK = {f"{case.family}: {case.name}": case for case in all_cases(SEED) if case.is_quick}


@pytest.mark.parametrize("name", QUICK)
def test_nothing_is_lost_doubled_wrong_or_hidden_by(name: str, request: pytest.FixtureRequest) -> None:
    case = QUICK[name]
    url = request.getfixturevalue("postgresql").database() if case.database == "postgresql" else None
    assert case.run(SEED, url).problems == []
