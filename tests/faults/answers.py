"""Every way in which an HTTP response can be wrong: once, now and then, for one organization, always, or later on."""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

from resources.sandbox.logged_request import LoggedRequest
from tests.faults.cases import Case
from tests.faults.oracle import DatabaseName, Stage

PATTERNS = ("once", "5 %", "one organization", "always", "from the middle on")
_MIDDLE = 40  # about half of the requests of one case's load
_FIREWALL = b"<html><head><title>403 Forbidden</title></head><body>Request blocked. Ray ID 8f2a</body></html>"
_HTML = b"<!doctype html><html><body><h1>Sign in</h1></body></html>"

_FIELD = {"v2": "sessions_count", "v3": "sessions_created_count"}
Version = Literal["v2", "v3"]


def _answers(version: Version) -> dict[str, dict[str, Any]]:
    """The arguments of `Sandbox.fail` for each kind of response."""

    def counting(value: object) -> dict[str, Any]:
        def instead(asked: LoggedRequest, answer: Any) -> Any:
            return {**answer, _FIELD[version]: value} if _FIELD[version] in answer else {"items": value}

        return {"rewrite": instead}

    def nested(asked: LoggedRequest, answer: Any) -> Any:
        return {"data": answer}

    def without(asked: LoggedRequest, answer: Any) -> Any:
        return {name: value for name, value in answer.items() if name not in (_FIELD[version], "items")}

    statuses = (400, 401, 403, 404, 405, 408, 410, 418, 422, 429, 500, 502, 503, 504)
    in_two_seconds = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    in_a_year = format_datetime(datetime.now(UTC) + timedelta(days=365), usegmt=True)
    return {
        **{f"status {status}": {"status": status} for status in statuses},
        "429 after 1 s": {"retry_after": "1"},
        "429 after a date": {"retry_after": in_two_seconds},
        "429 after a year": {"retry_after": in_a_year},
        "429 after 10^9 s": {"retry_after": "1000000000"},
        "429 after nonsense": {"retry_after": "soon"},
        "503 after 1 s": {"status": 503, "retry_after": "1"},
        "status 301": {"status": 301, "redirect_to": "https://other.example/"},
        "status 302": {"redirect_to": "/login"},
        "status 204": {"status": 204, "body": b""},
        "200 with HTML": {"body": _HTML, "content_type": "text/html"},
        "200 with truncated JSON": {"body": b'{"sessions_cou'},
        "200 with no body": {"body": b""},
        "200 with a list": {"body": b"[]"},
        "true": counting(True),
        "a float": counting(1.5),
        "a string": counting("12"),
        "null": counting(None),
        "a negative number": counting(-1),
        "2^63": counting(2**63),
        "no field": {"rewrite": without},
        "nested deeper": {"rewrite": nested},
        "huge body": {"body": json.dumps({"padding": "x" * 5_000_000}).encode()},
        "endless body": {"endless": True},
        "slow": {"delay": 0.2},
        "too slow": {"delay": 3.0},
        "dripping too slowly": {"drip": 4.0},
        "dropped before the headers": {"drop": True},
        "dropped after the headers": {"truncate": True},
        "reset": {"reset": True},
        "garbage": {"garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not HTTP \r\n\r\n"},
        "firewall's 403": {"status": 403, "body": _FIREWALL, "content_type": "text/html"},
    }


def _every(number: int, beginning: int) -> Callable[[LoggedRequest], bool]:
    asked = itertools.count(beginning)
    return lambda _: next(asked) % number == 0


def _after(number: int) -> Callable[[LoggedRequest], bool]:
    asked = itertools.count()
    return lambda _: next(asked) >= number


def _when(pattern: str, stage: Stage, dice: random.Random) -> dict[str, Any]:
    if pattern == "once":
        return {"times": 1, "when": _after(dice.randrange(_MIDDLE))}
    if pattern == "5 %":
        return {"times": None, "when": _every(20, dice.randrange(20))}
    if pattern == "one organization":
        return {"times": None, "org_id": dice.choice(stage.source.organizations).org_id}
    return {"times": None, "when": _after(_MIDDLE if pattern == "from the middle on" else 0)}


def cases(seed: int) -> Iterator[Case]:
    """Each response in each pattern; a fifth of them on PostgreSQL too."""
    for number, (answer, pattern) in enumerate(itertools.product(_answers("v2"), PATTERNS)):
        dice = random.Random(f"{seed}/answers/{number}")
        version: Version = "v3" if dice.random() < 0.2 else "v2"
        fetch = ("direct", "differenced")[number % 2]
        name = f"{answer}, {pattern} ({version}, {fetch})"
        databases: list[DatabaseName] = ["duckdb", "postgresql"] if number % 5 == number // 5 % 5 else ["duckdb"]
        for database in databases:
            yield Case(
                family="answers",
                name=name if database == "duckdb" else f"{name} on PostgreSQL",
                play=_play(answer, pattern, version, dice.random()),
                database=database,
                version=version,
                settings={"DEVIN_FETCH": fetch, "DEVIN_MAX_CONNECTIONS": "8"}
                | ({"DEVIN_TIMEOUT_SECONDS": "2"} if "slow" in answer else {}),
                is_quick=number % 53 == 3 and database == databases[-1],
            )


def _play(answer: str, pattern: str, version: Version, draw: float) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        fault = stage.source.fail(**_answers(version)[answer] | _when(pattern, stage, random.Random(draw)))
        ended = stage.run(*stage.backfill)
        stage.verdict.fired = fault.hits > 0
        stage.judge(ended)
        stage.source.heal()
        stage.judge_healed()

    return play
