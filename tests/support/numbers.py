"""The metrics of a load, as recorded in Dagster and as printed in JSON."""

import json
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from tests.support.command import devin_sessions
from tests.support.world import World

ASSET = dg.AssetKey("daily_sessions")


def in_dagster(world: World) -> list[dict[str, Any]]:
    """The metrics that each load recorded on the asset, newest first."""
    records = world.instance.fetch_observations(ASSET, limit=10).records
    return [
        {name: value.value for name, value in record.asset_observation.metadata.items()}
        for record in records
        if record.asset_observation and record.partition_key is None
    ]


def lines_of(*arguments: str) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
    """A command's exit code, and the JSON objects that say what it did and what went wrong, one a line."""
    code, out, err = devin_sessions(*arguments)
    assert out == "", "standard output is for results"
    return code, objects_in(err, "info"), objects_in(err, "error")


def objects_in(text: str, level: str) -> list[dict[str, Any]]:
    objects = [json.loads(line) for line in text.splitlines()]
    for line in objects:
        assert list(line)[:4] == ["time", "level", "event", "message"]
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    return [line for line in objects if line["level"] == level]
