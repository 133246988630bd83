"""The published contract of each version of the API, reduced to what a client can rely on."""

import json
from pathlib import Path
from typing import Any

from resources.sandbox.contract import Version

CONTRACTS = Path(__file__).parents[1] / "contract"

ANNOTATIONS = {"title", "description", "summary", "examples"}


def resolved(schema: Any, document: dict[str, Any]) -> Any:
    """A schema with its references resolved, annotations removed and unordered lists sorted."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return resolved(target, document)
    result: dict[str, Any] = {}
    for word, value in schema.items():
        if word == "properties":
            result[word] = {name: resolved(part, document) for name, part in value.items()}
        elif word in ("anyOf", "oneOf", "allOf"):
            result[word] = sorted((resolved(part, document) for part in value), key=json.dumps)
        elif word == "required":
            result[word] = sorted(value)
        elif word not in ANNOTATIONS:
            result[word] = resolved(value, document)
    return result


def promises(document: dict[str, Any]) -> dict[str, Any]:
    """What a client can rely on: paths, keys, parameters, responses, and all their schemas."""
    schemes = document["components"]["securitySchemes"]
    return {
        f"{method} {path}": {
            "parameters": {
                (item["in"], item["name"]): (item.get("required", False), resolved(item["schema"], document))
                for item in operation.get("parameters", [])
            },
            "responses": {
                code: {
                    media: resolved(content["schema"], document) for media, content in answer.get("content", {}).items()
                }
                for code, answer in operation["responses"].items()
            },
            "security": [{name: schemes[name] for name in way} for way in operation.get("security", [])],
        }
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


def contract(version: Version = "v2") -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CONTRACTS / f"devin_{version}.openapi.json").read_text(encoding="utf-8"))
    return document
