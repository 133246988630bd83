"""The batching event log compared with the stock one: the same rows, fewer transactions, nothing lost."""

import json
import multiprocessing
import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.instance import InstanceRef
from dagster._core.storage.event_log import SqliteEventLogStorage

import tests.support.forks  # noqa: F401  # so that the processes below are forked from one that has done the imports
from resources.event_batches import materialize_in_one_batch
from resources.event_log import BatchingSqliteEventLogStorage
from tests.support.event_log import OURS, commits, instance_in

STOCK: dict[str, Any] = {}

DAYS = dg.DailyPartitionsDefinition(start_date="2025-01-01", end_date="2026-01-01")
KEYS = DAYS.get_partition_keys()
SESSIONS, LAST = dg.AssetKey("sessions"), dg.AssetKey("last")
EACH_DAY = dg.AssetCheckKey(SESSIONS, "each_day")
# What differs between any two runs: times, and the parts of an event's text about when and where.
VOLATILE = {"timestamp", "event", "event_timestamp", "evaluation_event", "evaluation_event_timestamp"}
VOLATILE |= {"last_materialization", "last_materialization_timestamp", "create_timestamp", "migration_completed"}


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), code_version="1")
def sessions(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    if context.run.tags.get("end") == "failed":
        stored = context.partition_keys[::2]
        materialize_in_one_batch(
            context,
            [dg.AssetMaterialization(context.asset_key, partition=key, metadata={"count": 1}) for key in stored],
        )
        raise dg.Failure("half", allow_retries=False)
    for number, key in enumerate(context.partition_keys):
        context.add_asset_metadata({"count": number, "day": key}, partition_key=key)
    return dg.MaterializeResult(tags={"source": "test"})


@dg.asset(deps=[sessions])
def last(context: dg.AssetExecutionContext) -> None:
    if context.run.tags.get("end") == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


@dg.asset_check(asset=sessions)
def each_day() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def run(instance: dg.DagsterInstance, first: int, last_: int, run_id: str, end: str = "") -> None:
    """Run all assets over days number `first` to `last_`."""
    definitions = dg.Definitions(
        [sessions, last],
        asset_checks=[each_day],
        jobs=[dg.define_asset_job("all")],
        executor=dg.in_process_executor,
    )
    tags = {
        "dagster/asset_partition_range_start": KEYS[first],
        "dagster/asset_partition_range_end": KEYS[last_],
        "end": end,
    }
    definitions.resolve_job_def("all").execute_in_process(
        instance=instance,
        run_id=run_id,
        tags=tags,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def run_id_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def first_run(instance: dg.DagsterInstance) -> None:
    """A run that succeeds."""
    run(instance, 0, 4, run_id_of(1))


def second_run(instance: dg.DagsterInstance) -> None:
    """A run that fails after half of its days."""
    run(instance, 5, 8, run_id_of(2), end="failed")


def third_run(instance: dg.DagsterInstance) -> None:
    """A run over days of both."""
    run(instance, 4, 5, run_id_of(3))


def content_of(entry: dg.EventLogEntry | None) -> object:
    """The content of an entry; for those not about an asset, without times, process ids and file names."""
    if entry is None or entry.dagster_event is None:
        return entry and entry.user_message
    event = entry.dagster_event
    if event.asset_key or event.event_type_value.startswith("ASSET_CHECK"):
        return re.sub(r'"timestamp": [\d.]+', "", dg.serialize_value(entry))
    return event.event_type_value, event.step_key, event.job_name, entry.level


def shown(instance: dg.DagsterInstance) -> dict[str, object]:
    """Everything that the UI shows about the runs and assets, without times."""
    found: dict[str, object] = {
        run.run_id: (run.status, [content_of(entry) for entry in instance.all_logs(run.run_id)])
        for run in instance.get_runs()
    }
    for asset in (SESSIONS, LAST):
        (record,) = instance.get_asset_records([asset])
        found[asset.to_user_string()] = {
            "materialized": instance.get_materialized_partitions(asset),
            "status": instance.get_status_by_partition(asset, KEYS, DAYS) if asset == SESSIONS else None,
            "latest": content_of(instance.get_latest_materialization_event(asset)),
            "record": (
                record.storage_id,
                record.asset_entry.last_run_id,
                content_of(record.asset_entry.last_materialization),
            ),
            "events": [
                (event.storage_id, content_of(event.event_log_entry))
                for event in instance.fetch_materializations(asset, limit=1000).records
            ],
            "planned": [instance.get_latest_planned_materialization_info(asset, key) for key in (None, *KEYS[:10])],
            "tags": instance.get_event_tags_for_asset(asset),
        }
    check = instance.get_latest_asset_check_evaluation_record(EACH_DAY)
    found["check"] = check and (check.id, check.run_id, check.status, content_of(check.event))
    found["ended"] = [
        [(event.storage_id, event.run_id) for event in instance.fetch_run_status_changes(kind, limit=100).records]
        for kind in (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE)
    ]
    return found


def stored(home: Path) -> dict[str, object]:
    """Every row of every table of the event log's files, without what differs between any two runs."""
    found: dict[str, object] = {}
    for file in sorted((home / "history" / "runs").glob("*.db")):
        with closing(sqlite3.connect(file)) as connection:
            for name, sql in connection.execute("select name, sql from sqlite_master order by name").fetchall():
                found[f"{file.name}: {name} as made"] = sql
            for (name,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
                cursor = connection.execute(f"select * from {name} order by rowid")
                kept = [n for n, column in enumerate(cursor.description) if column[0] not in VOLATILE]
                found[f"{file.name}: {name}"] = [tuple(row[n] for n in kept) for row in cursor]
    return found


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")


@pytest.fixture(scope="module")
def stock_results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], dict[str, object]]:
    """What three runs show and store with Dagster's own storage."""
    home = tmp_path_factory.mktemp("stock")
    with instance_in(home, STOCK) as instance:
        first_run(instance)
        second_run(instance)
        third_run(instance)
        return shown(instance), stored(home)


def test_it_shows_and_stores_exactly_what_stock_dagster_does(
    stock_results: tuple[dict[str, object], dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "3")
    with instance_in(tmp_path, OURS) as instance:
        assert isinstance(instance.event_log_storage, BatchingSqliteEventLogStorage)
        first_run(instance)
        second_run(instance)
        third_run(instance)
        assert (shown(instance), stored(tmp_path)) == stock_results


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("end", ["", "failed"])
def test_many_days_take_only_a_handful_of_transactions_more_than_one(tmp_path: Path, end: str) -> None:
    with instance_in(tmp_path, OURS) as instance:
        run(instance, 0, 0, run_id_of(1), end)  # creates the tables, which must not be counted
        with commits() as of_a_day:
            run(instance, 0, 0, run_id_of(2), end)
        with commits() as of_many_days:
            run(instance, 0, 39, run_id_of(3), end)
        assert len(instance.get_materialized_partitions(SESSIONS)) == (20 if end else 40)
    assert of_many_days.total() <= of_a_day.total() + 5


@pytest.mark.usefixtures("batches")
def test_stock_dagster_and_this_storage_can_continue_each_others_files(
    stock_results: tuple[dict[str, object], dict[str, object]], tmp_path: Path
) -> None:
    with instance_in(tmp_path, OURS) as instance:
        first_run(instance)
    with instance_in(tmp_path, STOCK) as instance:
        assert type(instance.event_log_storage) is SqliteEventLogStorage
        second_run(instance)
    with instance_in(tmp_path, OURS) as instance:
        third_run(instance)
    with instance_in(tmp_path, STOCK) as instance:
        assert (shown(instance), stored(tmp_path)) == stock_results


@pytest.mark.usefixtures("batches")
def test_a_batch_that_fails_leaves_nothing_behind_so_storing_it_again_duplicates_nothing(tmp_path: Path) -> None:
    with instance_in(tmp_path, OURS) as instance:
        run(instance, 0, 4, run_id_of(1))
        events = instance.all_logs(run_id_of(1), of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        before = stored(tmp_path)
        with closing(sqlite3.connect(tmp_path / "history" / "runs" / "index.db")) as index:
            index.execute(
                f"create trigger refuse before insert on event_logs when new.partition = '{KEYS[3]}'"
                " begin select raise(abort, 'the disk is full'); end"
            )
            with pytest.raises(sa.exc.IntegrityError, match="the disk is full"):
                instance.event_log_storage.store_event_batch(events)
            index.execute("drop trigger refuse")
        assert stored(tmp_path) == before
        instance.event_log_storage.store_event_batch(events)
        assert len(instance.all_logs(run_id_of(1), of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)) == 2 * len(
            events
        )


def test_the_files_are_in_the_instance_directory_wherever_its_configuration_is(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "dagster.yaml").write_text(json.dumps(OURS))
    reference = InstanceRef.from_dir(str(tmp_path / "home"), config_dir=str(tmp_path / "project"))
    with dg.DagsterInstance.from_ref(reference) as instance:
        run(instance, 0, 0, run_id_of(1))
    assert {file.stem for file in (tmp_path / "home" / "history" / "runs").glob("*.db")} == {"index", run_id_of(1)}


def run_in_child(home: Path, first: int, last_: int, number: int, end: str, together: Any) -> None:
    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = "5"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        together.wait()
        run(instance, first, last_, run_id_of(number), end)


@pytest.fixture(scope="module")
def two_process_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The instance's directory after concurrent runs of two processes, the second killed in its last asset."""
    home = tmp_path_factory.mktemp("shared")
    forks = multiprocessing.get_context("forkserver")
    together = forks.Barrier(3)
    with instance_in(home, OURS) as instance:
        children = [
            forks.Process(target=run_in_child, args=(home, 0, 14, 1, "", together)),
            forks.Process(target=run_in_child, args=(home, 15, 29, 2, "killed", together)),
        ]
        for child in children:
            child.start()
        together.wait()
        seen: set[str] = set()
        while any(child.is_alive() for child in children):
            seen_before, seen = seen, instance.get_materialized_partitions(SESSIONS)
            assert seen >= seen_before
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, -signal.SIGKILL]
    return home


def events_of_sessions(instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType) -> list[str | None]:
    """The days of the run's events of this type about `sessions`, in order."""
    events = [entry.get_dagster_event() for entry in instance.all_logs(run_id, of_type=kind)]
    return [event.partition for event in events if event.asset_key == SESSIONS]


def test_two_processes_write_at_once_while_a_third_reads(two_process_home: Path) -> None:
    with instance_in(two_process_home, STOCK) as instance:
        assert instance.get_materialized_partitions(SESSIONS) == set(KEYS[:30])
        for number, days in ((1, KEYS[:15]), (2, KEYS[15:30])):
            for kind in (dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION):
                assert events_of_sessions(instance, run_id_of(number), kind) == days


def test_a_process_that_is_killed_loses_no_event_that_was_stored(two_process_home: Path) -> None:
    with instance_in(two_process_home, STOCK) as instance:
        killed = instance.get_run_by_id(run_id_of(2))
        assert killed and killed.status == dg.DagsterRunStatus.STARTED
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        assert events_of_sessions(instance, killed.run_id, kind) == KEYS[15:30]
        assert instance.get_materialized_partitions(SESSIONS) >= set(KEYS[15:30])


def test_an_event_of_a_run_whose_log_was_wiped_is_stored_again(tmp_path: Path) -> None:
    with instance_in(tmp_path, OURS) as instance:
        first_run(instance)
        instance.event_log_storage.wipe()
        assert instance.all_logs(run_id_of(1)) == []
        first = dg.DagsterRun(run_id=run_id_of(1), job_name="all")
        instance.report_engine_event("after the wipe", first)
        (entry,) = instance.all_logs(run_id_of(1))
        assert entry.message.endswith("after the wipe")
