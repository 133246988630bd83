"""All cases, by family."""

import traceback

from tests.faults import answers, kills, lies, storage
from tests.faults.cases import Case
from tests.faults.table import Verdict

FAMILIES = {"answers": answers.cases, "lies": lies.cases, "kills": kills.cases, "storage": storage.cases}


def all_cases(seed: int) -> list[Case]:
    """Every case of every family. The same seed gives the same cases."""
    return [case for cases in FAMILIES.values() for case in cases(seed)]


def play(number: int, seed: int, postgresql_url: str | None) -> Verdict:
    """Play one of `all_cases`. A failure of the suite itself counts as a problem of that case."""
    case = all_cases(seed)[number]
    try:
        return case.run(seed, postgresql_url)
    except Exception:
        return Verdict(case.family, case.name, tracebacks=[f"in the suite itself: {traceback.format_exc()}"])
