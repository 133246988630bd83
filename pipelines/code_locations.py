"""Which code locations of this project share one Dagster, and which of them are not told apart.

Each leaves a note in Dagster's storage when the daemon evaluates its sensor. The times of its sensors' ticks, which
Dagster records, say which are alive: one that was renamed, moved or removed is not, since it has no more ticks.
"""

import hashlib
import itertools
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import SensorInstigatorData
from pydantic import BaseModel

from pipelines.settings import Settings
from resources.devin_key import digest_of_key

_NOTE = "devin-sessions/code-location/"
_MAX_SILENCE_SECONDS = 180.0  # the sensor has a tick every ten seconds, unless one takes long


class Note(BaseModel, frozen=True):
    """What must differ between two code locations; `key` and `warehouse` are digests, empty if there is none to tell.

    `since` is when it began to have ticks with these values and without a long pause, in seconds since 1970.
    """

    enterprise: str
    prefix: str
    key: str
    warehouse: str
    since: float = 0.0


@dataclass(frozen=True)
class _Location:
    name: str
    note: Note
    last_tick: float

    @property
    def shown(self) -> str:
        """It as a message shows it."""
        is_named_after_it = self.note.enterprise in ("", self.name)
        return self.name if is_named_after_it else f"{self.name} ({self.note.enterprise})"

    def was_alive_with(self, other: "_Location") -> bool:
        """Whether both had ticks at the same time: one that was renamed had none since it has its new name."""
        return self.last_tick >= other.note.since and other.last_tick >= self.note.since


def register(instance: dg.DagsterInstance, settings: Settings, location: str, at: datetime) -> list[str]:
    """Leave a note that this code location has a tick at this time. Returns what `clashes` does, about it alone."""
    now = at.timestamp()
    last_tick = _last_ticks(instance).get(location, 0.0)
    storage, key, note = instance.daemon_cursor_storage, f"{_NOTE}{location}", _note_of(settings)
    stored = storage.get_cursor_values({key}).get(key)
    before = Note.model_validate_json(stored) if stored else None
    note = note.model_copy(update={"since": before.since if before else now})
    if note != before or last_tick < now - _MAX_SILENCE_SECONDS:
        note = note.model_copy(update={"since": now})
        storage.set_cursor_values({key: note.model_dump_json()})
    own = _Location(location, note, now)
    others = [other for other in _alive(instance, now) if other.name != location]
    return _sentences((own, other) for other in others)


def clashes(instance: dg.DagsterInstance, settings: Settings, at: datetime) -> list[str]:
    """A sentence about each code location that is not told apart from this enterprise's, or from another of it."""
    now = at.timestamp()
    alive = _alive(instance, now)
    own = [location for location in alive if location.note.enterprise == settings.devin_enterprise]
    others = [location for location in alive if location not in own]
    # What has no code location yet would have the command's settings.
    mine = own or [_Location("this one", _note_of(settings), now)]
    return _sentences([*itertools.combinations(own, 2), *itertools.product(mine, others)])


def _sentences(pairs: Iterable[tuple[_Location, _Location]]) -> list[str]:
    return [sentence for a, b in pairs if a.was_alive_with(b) and (sentence := _clash(a, b))]


def _clash(a: _Location, b: _Location) -> str:
    """What is wrong with these two; empty if nothing is."""
    both = f"The code locations {' and '.join(sorted((a.shown, b.shown)))}"
    if a.note.prefix == b.note.prefix or (a.note.enterprise and a.note.enterprise == b.note.enterprise):
        return (
            f"{both} have the same names, so Dagster takes the assets and runs of one for those of the other. Set "
            "DEVIN_ENTERPRISE to another name in one of them, and remove DEVIN_ASSET_PREFIX or set that too."
        )
    if a.note.key and a.note.key == b.note.key:
        return (
            f"{both} have the same key, so both count the sessions of one enterprise. Set DEVIN_API_KEY to each "
            "enterprise's own."
        )
    if a.note.warehouse and a.note.warehouse == b.note.warehouse:
        return (
            f"{both} have the same warehouse, which then mixes the counts of two enterprises. Set WAREHOUSE_URL or, on "
            "PostgreSQL, DEVIN_SCHEMA to another one in one of them, and load its history again."
        )
    return ""


def _note_of(settings: Settings) -> Note:
    key = settings.devin_api_key
    return Note(
        enterprise=settings.devin_enterprise,
        prefix="/".join(settings.devin_asset_prefix),
        key=digest_of_key(key.get_secret_value(), settings.devin_api_url) if key else "",
        warehouse=_digest_of_warehouse(settings),
    )


def _digest_of_warehouse(settings: Settings) -> str:
    warehouse = settings.warehouse
    if warehouse.is_file:
        where = f"{socket.gethostname()} {os.path.realpath(warehouse.path)}"  # each container has its own directories
    elif warehouse.is_duckdb:
        return ""  # two accounts of MotherDuck may each have a database of this name
    else:
        # Without a schema in the settings, it depends on the user and the address.
        where = warehouse.name if warehouse.schema else warehouse.url
    return hashlib.sha256(where.encode()).hexdigest()


def _alive(instance: dg.DagsterInstance, now: float) -> list[_Location]:
    """The code locations of this project that have ticks, by name."""
    ticks = {name: last for name, last in _last_ticks(instance).items() if last > now - _MAX_SILENCE_SECONDS}
    notes = instance.daemon_cursor_storage.get_cursor_values({f"{_NOTE}{name}" for name in ticks}) if ticks else {}
    return [
        _Location(name, Note.model_validate_json(notes[f"{_NOTE}{name}"]), last_tick)
        for name, last_tick in sorted(ticks.items())
        if f"{_NOTE}{name}" in notes
    ]


def _last_ticks(instance: dg.DagsterInstance) -> dict[str, float]:
    """When a sensor of each code location had its last tick, in seconds since 1970."""
    last: dict[str, float] = {}
    if instance.schedule_storage:  # an instance that is only in memory has none
        for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
            location = state.origin.repository_origin.code_location_origin.location_name
            data = state.instigator_data
            tick = data.last_tick_timestamp if isinstance(data, SensorInstigatorData) else None
            last[location] = max(last.get(location, 0.0), tick or 0.0)
    return last
