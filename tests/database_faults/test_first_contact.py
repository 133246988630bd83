"""A server that is down when a run connects for the first time: the run waits, a person's command doesn't."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import anyio
import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from pipelines.failures import failure_message
from pipelines.ledger import read
from pipelines.names import JOB
from pipelines.schedules import range_tags
from resources.database import Database
from resources.database_errors import WarehouseAway, WarehouseError, WarehouseLost, reached
from resources.first_contact import first_contact
from resources.pace_row import PaceRows
from tests.support.databases import PASSWORD, with_numbers
from tests.support.loads import fill
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.servers import Server, as_administrator
from tests.support.warehouse import migrated
from tests.support.world import World
from warehouse import migrations


@pytest.fixture
def of_a_worker(server: Server) -> Iterator[tuple[Database, list[str]]]:
    """A database with one table of one row, which this process has not reached yet, and what its user is told."""
    told: list[str] = []
    database = with_numbers(Database(url=server.database(), tell=told.append))
    reached.remove(database.url)
    yield database, told
    server.control("stop", "-m", "immediate")
    server.start()


def write(database: Database) -> None:
    database.write(lambda connection: connection.execute(sa.text("update numbers set number = 2")))


def lease(database: Database) -> None:
    async def from_row() -> None:
        async with PaceRows(database, migrations.create_pace).row("key", "url") as row:
            await row.lease({}, 1, 1.0, 0)

    anyio.run(from_row)


USES: dict[str, Callable[[Database], object]] = {
    "reader": lambda database: read(database, lambda _: None),
    "writer": write,
    "pace": lease,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("down", ["no server", "57P03"])
def test_the_first_connection_of_a_run_waits_for_a_server_that_restarts_and_says_so_once(
    of_a_worker: tuple[Database, list[str]], server: Server, use: Callable[[Database], object], down: str
) -> None:
    database, told = of_a_worker
    server.control("stop", "-m", "immediate")
    if down == "57P03":
        server.start_in_recovery()

    def bring_up(sentence: str) -> None:
        told.append(sentence)
        if down == "57P03":
            server.control("promote")
        else:
            server.start()

    use(replace(database, tell=bring_up))
    (sentence,) = told
    assert sentence.startswith(f"The warehouse {database.name} accepts no connection: ")
    assert sentence.endswith("The run waits up to 30 s for it.")


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_wait_in_vain_ends_with_how_long_it_was_and_what_to_look_at(use: Callable[[Database], object]) -> None:
    told: list[str] = []
    nobody = f"postgresql+psycopg://writer:{PASSWORD}@127.0.0.1:{free_port()}/db"
    database = Database(url=nobody.replace("@ss/w", "%40ss%2Fw"), lock_timeout_seconds=0.1, tell=told.append)
    with pytest.raises(WarehouseAway) as away:
        use(database)
    message = str(away.value)
    assert isinstance(away.value, WarehouseLost), "as a connection that is lost later"
    assert f"The warehouse {database.name} accepts no connection: " in message
    assert "Check whether that server is up, and the host and port in WAREHOUSE_URL" in message
    assert re.search(r" Waited for it: \d+ tries in \d+ s\.$", message)
    assert len(told) == 1
    assert PASSWORD not in message + told[0] and "\n" not in message


def test_each_step_of_a_run_that_dagster_started_waits_and_the_run_of_a_person_fails_at_once(
    world: World, server: Server
) -> None:
    published = world.directory / "bucket"
    world.configure(warehouse_url=server.database(unprivileged=True), devin_publish_url=f"file://{published}")
    fill(world, "2025-04-01", "2025-04-01")
    job, instance = world.definitions.resolve_job_def(JOB), world.instance
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("own"), "__repository__"), JOB)
    started: list[str] = []
    waited: list[str] = []

    def hear(event: dg.EventLogEntry) -> None:
        """Stop the server whenever a step begins, and start it once the run says that it waits."""
        if event.is_dagster_event and event.get_dagster_event().event_type is dg.DagsterEventType.STEP_START:
            started.append(str(event.step_key))
            server.control("stop", "-m", "immediate")
        elif "The run waits up to 30 s for it." in event.user_message:
            waited.append(started[-1])
            server.start()

    def run(by: RemoteJobOrigin | None) -> dg.DagsterRun:
        reached.discard(world.database.url)
        made = instance.create_run_for_job(job, tags=range_tags("2025-04-02", "2025-04-02"), remote_job_origin=by)
        instance.add_event_listener(made.run_id, hear)
        execute_run(InMemoryJob(job), made, instance)
        ended = instance.get_run_by_id(made.run_id)
        assert ended
        return ended

    assert run(origin).status is dg.DagsterRunStatus.SUCCESS
    assert waited == started, "each step once"
    assert {"organizations", "daily_sessions", "daily_sessions_checks", "published_files"} < {*waited}
    assert world.cells() == world.truth("2025-04-01", "2025-04-02")
    assert (published / "manifest.json").exists()
    started.clear()
    failed = run(None)
    server.start()
    (failure,) = instance.all_logs(failed.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert failure_message(failure.get_dagster_event(), failed.run_id).endswith("Check WAREHOUSE_URL.")


def test_what_a_run_reads_is_read_again_if_the_connection_is_cut(postgresql: PostgreSQL) -> None:
    on_postgresql, tries = migrated(Database(url=postgresql.database())), []

    def look(connection: sa.Connection) -> int:
        tries.append(connection)
        if len(tries) == 1:
            server_process = connection.execute(sa.text("select pg_backend_pid()")).scalar_one()
            with on_postgresql.transaction() as another:
                another.execute(sa.text("select pg_terminate_backend(:pid, 30000)"), {"pid": server_process})
        return int(connection.execute(sa.text("select 42")).scalar_one())

    assert read(on_postgresql, look) == 42
    assert len(tries) == 2


def test_a_tick_of_the_schedule_waits_too_and_a_persons_command_does_not(world: World) -> None:
    assert world.settings.warehouse.tell is None
    defined = world.definitions.resources
    assert defined
    with dg.build_resources({"database": defined["database"]}) as resources:
        assert resources.database.tell is not None


@pytest.mark.parametrize("is_up_afterwards", [True, False], ids=["comes up", "goes down"])
def test_a_server_that_comes_up_or_goes_down_around_the_failure_was_down(
    of_a_worker: tuple[Database, list[str]], server: Server, *, is_up_afterwards: bool
) -> None:
    database, _ = of_a_worker
    if is_up_afterwards:
        server.control("stop", "-m", "immediate")
    with pytest.raises(WarehouseAway), first_contact(database):
        if not is_up_afterwards:
            server.control("stop", "-m", "immediate")
        try:
            psycopg.connect(sa.make_url(database.url).set(drivername="postgresql").render_as_string(False))
        finally:
            if is_up_afterwards:
                server.start()
    if not is_up_afterwards:
        server.start()


@pytest.fixture
def over_tcp(server: Server) -> Iterator[sa.URL]:
    """A database on a server that listens on TCP, has no TLS, and asks the user `writer` for PASSWORD."""
    url = sa.make_url(server.database())
    as_administrator(url.render_as_string(hide_password=False), f"create role writer login password '{PASSWORD}'")
    hba = server.data / "pg_hba.conf"
    hba.write_text(f"host all writer 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
    port = free_port()
    server.control("stop", "-m", "immediate")
    server.start("-h", "127.0.0.1", "-p", str(port))
    yield sa.URL.create(url.drivername, "writer", PASSWORD, "127.0.0.1", port, url.database)
    server.control("stop", "-m", "immediate")
    server.start()


def test_what_no_wait_would_mend_fails_at_once_in_a_run_too(over_tcp: sa.URL) -> None:
    told: list[str] = []
    with Database(url=over_tcp.render_as_string(hide_password=False), tell=told.append).transaction(read_only=True):
        pass
    for wrong, words in (
        (over_tcp.set(password="another"), "refuses user writer with this password"),
        (over_tcp.set(database="nowhere"), 'database "nowhere" does not exist'),
        (over_tcp.set(host="no.such.host.invalid", query={"sslmode": "disable"}), "no.such.host.invalid"),
        (over_tcp.update_query_dict({"sslmode": "require"}), "does not support SSL"),
    ):
        for use in USES.values():
            with pytest.raises(WarehouseError, match=words) as refused:
                use(Database(url=wrong.render_as_string(hide_password=False), tell=told.append))
            assert not isinstance(refused.value, WarehouseLost)
    assert told == []
