"""The real command, stopped by a signal at random moments and at each write, or disconnected by its server."""

import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from resources.sandbox.contract import SESSIONS_PATH
from resources.sandbox.logged_request import LoggedRequest
from tests.faults.cases import Case
from tests.faults.oracle import DatabaseName, Stage, Stored
from tests.support.forks import Command

DAYS = 70  # three blocks
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDED_BY = {
    signal.SIGKILL: {-signal.SIGKILL},
    signal.SIGTERM: {128 + signal.SIGTERM},
    signal.SIGINT: {128 + signal.SIGINT},
}
_POLL_SECONDS = 0.002

_longest: dict[str, float] = {}
"""Seconds that an undisturbed load took in this process, by database."""

Moment = Callable[[Stage, Command], bool]
"""Waits for the moment to stop the command; returns False if the command ended first."""


def _at_request(number: int) -> Callable[[Stage], Moment]:
    def prepare(stage: Stage) -> Moment:
        reached = threading.Event()
        requests = itertools.count(1)

        def is_it(asked: LoggedRequest) -> bool:
            if next(requests) != number:
                return False
            reached.set()
            return True

        stage.source.fail(delay=60, when=is_it, path=SESSIONS_PATH, times=None)

        def moment(stage: Stage, command: Command) -> bool:
            while not reached.is_set():
                if not command.is_running(_POLL_SECONDS):
                    return False
            return True

        return moment

    return prepare


def _at_random(share: float) -> Callable[[Stage], Moment]:
    def prepare(stage: Stage) -> Moment:
        kind = stage.warehouse_url.split(":")[0]
        if kind not in _longest:
            whole = stage.sibling()
            _longest[kind] = whole.run(*whole.backfill).seconds

        def moment(stage: Stage, command: Command) -> bool:
            return command.is_running(share * _longest[kind])

        return moment

    return prepare


def _state_of_files(directory: Path) -> object:
    found = {}
    for path in sorted(directory.rglob("*")):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        found[path] = about.st_mtime_ns, about.st_size
    return found


def _at_change(number: int, directory: Callable[[Stage], Path]) -> Callable[[Stage], Moment]:
    """The moment at which a directory's files have changed this number of times."""

    def prepare(stage: Stage) -> Moment:
        def moment(stage: Stage, command: Command) -> bool:
            before, changes = _state_of_files(directory(stage)), 0
            while command.is_running():
                now = _state_of_files(directory(stage))
                changes += now != before
                before = now
                if changes >= number:
                    return True
                time.sleep(_POLL_SECONDS)  # leaves the processor to the command
            return False

        return moment

    return prepare


def _warehouse_directory(stage: Stage) -> Path:
    return Path(str(sa.make_url(stage.warehouse_url).database)).parent


def _published(stage: Stage) -> Path:
    return _warehouse_directory(stage) / "published"


def _home(stage: Stage) -> Path:
    return stage.directory / "dagster"


def _connected(stage: Stage) -> "psycopg.Connection[Any]":
    url = sa.make_url(stage.warehouse_url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(url, autocommit=True)


_WRITING = """
    select pid, xact_start from pg_stat_activity
    where application_name = 'devin-sessions' and datname = current_database()
    and state in ('active', 'idle in transaction') and xact_start is not null and backend_xid is not null
"""


def _at_write(number: int, *, drops: bool = False) -> Callable[[Stage], Moment]:
    """The command's writing transaction of this number. If `drops`, the server then closes that connection."""

    def prepare(stage: Stage) -> Moment:
        def moment(stage: Stage, command: Command) -> bool:
            seen = set()
            with _connected(stage) as connection:
                while command.is_running():
                    for pid, began in connection.execute(_WRITING).fetchall():
                        seen.add((pid, began))
                        if len(seen) >= number:
                            if drops:
                                row = connection.execute("select pg_terminate_backend(%s)", [pid]).fetchone()
                                return bool(row and row[0])
                            return True
                    time.sleep(_POLL_SECONDS)  # leaves the processor to the command
            return False

        return moment

    return prepare


def _play(number: signal.Signals | None, prepare: Callable[[Stage], Moment]) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        moment = prepare(stage)
        command = stage.start(*stage.backfill)
        stage.wait_for_signal_handlers(command)
        stage.verdict.fired = moment(stage, command) and (number is None or command.send(number))
        ended = stage.end(command, "backfill")
        if number is not None and ended.code == 0:
            stage.verdict.fired = False  # too late: the load was complete
        if stage.verdict.fired:
            expected = ENDED_BY[number] if number else {0, 1}
            if ended.code not in expected:
                stage.verdict.silent.append(f"exit code {ended.code} instead of {expected}: {ended.output[-300:]!r}")
        _check_days_are_whole(stage, stage.stored())
        stage.judge(ended)
        stage.source.heal()
        stage.judge_healed()

    return play


def _check_days_are_whole(stage: Stage, stored: Stored) -> None:
    """Check that each day was stored whole or not at all: one that has a total has all its cells."""
    organizations = [organization.org_id for organization in stage.source.organizations]
    for day in stored.totals:
        lacking = [org for org in organizations if (day, org) not in stored.cells]
        stage.verdict.lost += [f"{day} has a total, but no cell of {org}" for org in lacking]
    days: set[date] = {day for day, _ in stored.cells}
    stage.verdict.lost += [f"{day} has cells, but no total" for day in days - stored.totals.keys()]


def cases(seed: int) -> Iterator[Case]:
    """Every kind of moment, with the signals in turn, on both databases."""
    dice = random.Random(f"{seed}/kills")
    moments: list[tuple[str, DatabaseName, Callable[[Stage], Moment]]] = []
    for database, share in (("duckdb", 1.0), ("postgresql", 0.6)):
        name: DatabaseName = "duckdb" if database == "duckdb" else "postgresql"
        for _ in range(int(36 * share)):
            number = dice.randrange(1, 220)
            moments.append((f"at request {number}", name, _at_request(number)))
        for _ in range(int(42 * share)):
            when = dice.random()
            moments.append((f"at {when:.0%} of the time", name, _at_random(when)))
    for number in range(1, 22):
        moments.append((f"at write {number}", "duckdb", _at_change(number, _warehouse_directory)))
    for number in range(1, 13):
        moments.append((f"at publication's write {number}", "duckdb", _at_change(number, _published)))
    for number in range(1, 13):
        moments.append((f"at Dagster's write {4 * number}", "duckdb", _at_change(4 * number, _home)))
    for number in range(1, 13):
        moments.append((f"at write {number}", "postgresql", _at_write(number)))
    for index, (words, database, prepare) in enumerate(moments):
        ending = SIGNALS[index % len(SIGNALS)]
        yield Case(
            family="kills",
            name=f"{ending.name} {words} on {database} ({index})",
            play=_play(ending, prepare),
            database=database,
            days=DAYS,
            may_miss=True,
            is_quick=index in (1, 2, 78),
        )
    for number in range(1, 13):
        yield Case(
            family="dropped connections",
            name=f"at write {number}",
            play=_play(None, _at_write(number, drops=True)),
            database="postgresql",
            days=DAYS,
            may_miss=True,
            is_quick=number == 2,
        )
