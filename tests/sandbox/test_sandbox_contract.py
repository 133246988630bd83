"""The sandbox keeps to the published contract, and the comparison of the two misses no difference."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from resources.sandbox.contract import ORGANIZATIONS_PATH, SESSIONS_PATH, Version
from resources.sandbox.server import Sandbox
from tests.support.contract import contract, promises


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_sandbox_promises_exactly_the_published_contract(version: Version) -> None:
    assert promises(Sandbox(organizations=0).openapi(version)) == promises(contract(version))


def counting(document: dict[str, Any]) -> Any:
    return document["paths"][SESSIONS_PATH]["get"]


def parameter(document: dict[str, Any], name: str) -> Any:
    return next(item for item in counting(document)["parameters"] if item["name"] == name)


def schema(document: dict[str, Any], name: str) -> Any:
    return document["components"]["schemas"][name]


MUTATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a path is missing": lambda it: it["paths"].pop(ORGANIZATIONS_PATH),
    "a path is new": lambda it: it["paths"].update({"/v2/new": it["paths"][ORGANIZATIONS_PATH]}),
    "a parameter is missing": lambda it: counting(it)["parameters"].remove(parameter(it, "user_ids")),
    "a parameter is renamed": lambda it: parameter(it, "start_date").update(name="startDate"),
    "a parameter is required": lambda it: parameter(it, "start_date").update(required=True),
    "a parameter is a header": lambda it: parameter(it, "start_date").update({"in": "header"}),
    "a parameter is not null": lambda it: parameter(it, "end")["schema"]["anyOf"].pop(),
    "a parameter lost its format": lambda it: parameter(it, "end")["schema"]["anyOf"][0].pop("format"),
    "a list holds numbers": lambda it: parameter(it, "org_ids")["schema"]["anyOf"][0]["items"].update(type="integer"),
    "a list is one text": lambda it: parameter(it, "org_ids")["schema"].update(anyOf=[{"type": "string"}]),
    "a limit moved": lambda it: it["paths"][ORGANIZATIONS_PATH]["get"]["parameters"][1]["schema"].update(maximum=500),
    "a default moved": lambda it: it["paths"][ORGANIZATIONS_PATH]["get"]["parameters"][1]["schema"].update(default=50),
    "an answer is missing": lambda it: counting(it)["responses"].pop("429"),
    "an answer is another type": lambda it: counting(it)["responses"]["200"].update(
        content={"text/csv": {"schema": {"type": "string"}}}
    ),
    "the count is a text": lambda it: schema(it, "SessionsMetrics")["properties"]["sessions_count"].update(
        type="string"
    ),
    "the count is optional": lambda it: schema(it, "SessionsMetrics")["required"].clear(),
    "the count is renamed": lambda it: schema(it, "SessionsMetrics")["properties"].update(
        count=schema(it, "SessionsMetrics")["properties"].pop("sessions_count")
    ),
    "the creation time is not null": lambda it: schema(it, "Organization")["properties"]["created_at"]["anyOf"].pop(),
    "an error place is text only": lambda it: schema(it, "ValidationError")["properties"]["loc"]["items"][
        "anyOf"
    ].pop(),
    "no key is needed": lambda it: counting(it).pop("security"),
    "the key is sent otherwise": lambda it: it["components"]["securitySchemes"]["HTTPBearer"].update(scheme="basic"),
}


@pytest.mark.parametrize("difference", MUTATIONS)
def test_the_comparison_with_the_contract_sees_every_difference(difference: str) -> None:
    mutated = copy.deepcopy(contract())
    MUTATIONS[difference](mutated)
    assert promises(mutated) != promises(contract())


def test_the_comparison_with_the_contract_ignores_wording_and_order() -> None:
    reworded = copy.deepcopy(contract())
    counting(reworded).update(summary="Count", operationId="other")
    counting(reworded)["parameters"].reverse()
    parameter(reworded, "end")["schema"].update(title="Until", description="The end")
    parameter(reworded, "end")["schema"]["anyOf"].reverse()
    assert promises(reworded) == promises(contract())
