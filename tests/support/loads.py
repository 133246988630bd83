"""Days put into the warehouse, and published, without a run: for tests of what reads them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from pipelines.partitions import Day, closed_days, daily_partitions
from resources.database import Database
from resources.files import replacing
from tests.support.warehouse import migrated
from tests.support.world import World
from warehouse import parquet, rollups, tables, writes
from warehouse.dimensions import USERS, Dimension
from warehouse.snapshot import arrange
from warehouse.writes import Entry, Provenance, Reading


def fill(world: World, first: str, last: str) -> None:
    """Store what a run over these days would, as the settings say: from the sandbox's sessions, but not its answers."""
    settings, now = world.settings, datetime.now(UTC)
    days = world.days(first, last)
    with migrated(world.database).transaction() as connection:
        writes.store_day_boundary(connection, settings.devin_timezone, settings.devin_day_start_hour)
        writes.store_expected_days(connection, settings.devin_start_date, closed_days(daily_partitions(settings))[-1])
        for dimension in settings.dimensions:
            entries = _listed(world, dimension)
            writes.store_listed(connection, dimension, entries, now)
            readings = [_read(world, dimension, day, [entry.id for entry in entries]) for day in days]
            writes.store_days(connection, dimension, readings, Provenance("v2", now, run_id="no run"))
        for table in tables.ROLLUPS:
            rollups.rebuild(connection, table, settled_after_days=settings.settled_after_days)


def fill_behind(world: World, first: str, last: str) -> None:
    """The same, with every rollup behind these days, as after a run of the loads alone."""
    fill(world, first, last)
    with world.database.transaction() as connection:
        for table in tables.ROLLUPS:
            connection.execute(sa.delete(table))
        rollups.mark_everything_stale(connection)


def publish(world: World) -> None:
    """Write the snapshot and the Parquet files of the warehouse, unless it is on a server."""
    snapshot = world.settings.published_snapshot
    if snapshot is None:
        return
    snapshot.parent.mkdir(exist_ok=True)
    world.database.copy_to(snapshot, arrange)
    with Database(url=Database.url_of(snapshot)).transaction(read_only=True) as connection:
        parquet.export(connection, parquet.directory_beside(snapshot), replacing)


def _listed(world: World, dimension: Dimension) -> list[Entry]:
    if dimension is USERS:
        found = [Entry(member.user_id, created_at=member.created_at) for member in world.source.members]
    else:
        found = [Entry(o.org_id, o.org_name, o.created_at) for o in world.source.organizations]
    known = {entry.id: entry for entry in found}
    chosen = world.settings.chosen(dimension)
    return [replace(known.get(id_, Entry(id_)), is_chosen=True) for id_ in chosen] or found


def _read(world: World, dimension: Dimension, day: Day, ids: Sequence[str]) -> Reading:
    total = world.source.truth(day.start, day.end)
    asked = dimension.question_filter
    counts = {id_: world.source.truth(day.start, day.end, **{asked: [id_]}) for id_ in ids}
    return Reading(day.day, day.start, day.end, total, counts, how={}, expected=len(ids))


def fill_all_tables(world: World, first: str, last: str) -> None:
    """Put rows in every table: of users too, of an unlisted organization, and of counts that change afterwards."""
    world.configure(devin_user_ids="discover", devin_start_date="2025-03-15")
    user_id = world.source.members[0].user_id
    noon = datetime.fromisoformat(f"{last}T12:00:00Z")
    world.source.add_sessions("org-not-listed", noon - timedelta(days=14))
    fill(world, first, last)
    for organization in world.source.organizations[:2]:
        world.source.add_sessions(organization.org_id, noon, user_id=user_id)
    fill(world, last, last)
