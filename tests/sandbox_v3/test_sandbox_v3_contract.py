"""The comparison with the contract of v3, made in `test_sandbox_contract`, misses no difference."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from resources.sandbox.contract import MEMBERS_PATH_V3, SESSIONS_PATH_V3
from tests.support.contract import contract, promises


def counting(document: dict[str, Any]) -> Any:
    return document["paths"][SESSIONS_PATH_V3]["get"]


def schema(document: dict[str, Any], name: str) -> Any:
    return document["components"]["schemas"][name]


MUTATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a path is missing": lambda it: it["paths"].pop(MEMBERS_PATH_V3),
    "a bound is optional": lambda it: counting(it)["parameters"][0].update(required=False),
    "a bound is a date": lambda it: counting(it)["parameters"][1].update(schema={"type": "string", "format": "date"}),
    "a page is larger": lambda it: it["paths"][MEMBERS_PATH_V3]["get"]["parameters"][1]["schema"].update(maximum=500),
    "an error is plain JSON": lambda it: counting(it)["responses"]["403"].update(
        content={"application/json": counting(it)["responses"]["403"]["content"]["application/problem+json"]}
    ),
    "an error has no body": lambda it: counting(it)["responses"]["422"].pop("content"),
    "a problem has no title": lambda it: schema(it, "ProblemDetail")["properties"].pop("title"),
    "a problem may lack its detail": lambda it: schema(it, "ProblemDetail")["required"].remove("detail"),
    "a breakdown is missing": lambda it: schema(it, "SessionMetrics")["properties"].pop("sessions_created_by_size"),
    "an origin is missing": lambda it: schema(it, "SessionCountsByOrigin")["properties"].pop("teams"),
    "the cursor is never null": lambda it: schema(it, "OrganizationsPage")["properties"]["end_cursor"]["anyOf"].pop(),
    "the creation time is a text": lambda it: schema(it, "Organization")["properties"]["created_at"].update(
        type="string"
    ),
    "the name is never null": lambda it: schema(it, "Member")["properties"]["name"]["anyOf"].pop(),
}


@pytest.mark.parametrize("difference", MUTATIONS)
def test_the_comparison_with_the_contract_sees_every_difference(difference: str) -> None:
    mutated = copy.deepcopy(contract("v3"))
    MUTATIONS[difference](mutated)
    assert promises(mutated) != promises(contract("v3"))
