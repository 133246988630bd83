"""Queries a Dagster UI over GraphQL."""

from typing import Any

import httpx

LAUNCH = """mutation Launch($params: ExecutionParams!) {
  %s(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PythonError { message }
  }
}"""

RUNS = "{ runsOrError { ... on Runs { results { runId status } } } }"


def graphql(url: str, query: str, **variables: object) -> dict[str, Any]:
    answer = httpx.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=120).json()
    assert "errors" not in answer, answer
    data: dict[str, Any] = answer["data"]
    return data
