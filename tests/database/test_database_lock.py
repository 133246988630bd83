"""What writers and readers wait for, on a real DuckDB file and a real PostgreSQL."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, timedelta

import pytest
import sqlalchemy as sa

from resources.database import Database
from resources.database_errors import WarehouseLocked
from tests.support.databases import as_superuser, database_at, insert, is_blocking_a_writer, numbers, with_numbers
from tests.support.postgresql import PostgreSQL
from tests.support.processes import another_process
from tests.support.waiting import wait_until

DAYS = [date(2025, 1, 30) + timedelta(days=number) for number in range(5)]


def session_of(connection: sa.Connection) -> str:
    """What a message calls the session of this connection, which is in a transaction."""
    query = "select pg_backend_pid(), current_setting('application_name'), now()"
    pid, name, began = connection.execute(sa.text(query)).one()
    return f"the server's process {pid} ({name}, in a transaction since {began.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC)"


def test_no_other_process_can_open_the_file_until_the_block_ends(database: Database) -> None:
    with another_process() as other:
        with database.transaction() as connection:
            insert(connection, 2)
            assert "Could not set lock" in other.open(database.path)
        assert other.open(database.path) == "done"


def test_after_a_block_that_raised_the_lock_is_free(database: Database) -> None:
    with another_process() as other:
        with pytest.raises(RuntimeError), database.transaction():
            raise RuntimeError
        assert other.open(database.path) == "done"


def test_after_a_reader_the_lock_is_free(database: Database) -> None:
    with another_process() as other:
        assert numbers(database) == [1]
        assert other.open(database.path) == "done"


def test_a_lock_that_another_process_holds_is_waited_for(database: Database) -> None:
    attempts = 0
    with another_process() as other:
        assert other.open(database.path) == "done"

        def attempt(*_: object) -> None:
            # The holder lets go after two failed attempts, so the third attempt proves that the lock was waited for.
            nonlocal attempts
            attempts += 1
            if attempts == 3:
                assert other.close() == "done"

        dialect = type(sa.create_engine(database.url).dialect)
        sa.event.listen(dialect, "do_connect", attempt)
        try:
            with database.transaction() as connection:
                insert(connection, 2)
        finally:
            sa.event.remove(dialect, "do_connect", attempt)
    assert attempts == 3
    assert numbers(database) == [1, 2]


@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
def test_a_lock_that_is_not_released_is_reported_with_the_process_that_holds_it(
    database: Database, read_only: bool
) -> None:
    waiting = database_at(database.path, lock_timeout_seconds=0.05)
    with another_process() as other:
        assert other.open(database.path) == "done"
        with pytest.raises(WarehouseLocked) as locked, waiting.transaction(read_only=read_only):
            pass
        message = str(locked.value)
        assert f"The warehouse {database.path} is locked by process {other.running.pid} (" in message
        assert "still was after 0.05 s. Close whatever has it open" in message
    assert numbers(database) == [1]


def test_with_no_time_to_wait_a_lock_is_tried_once(database: Database) -> None:
    attempts: list[object] = []

    def attempt(*arguments: object) -> None:
        attempts.append(arguments)

    dialect = type(sa.create_engine(database.url).dialect)
    with another_process() as other:
        assert other.open(database.path) == "done"
        sa.event.listen(dialect, "do_connect", attempt)
        try:
            with pytest.raises(WarehouseLocked), database_at(database.path, lock_timeout_seconds=0).transaction():
                pass
        finally:
            sa.event.remove(dialect, "do_connect", attempt)
    assert len(attempts) == 1


def test_a_second_writer_of_postgresql_begins_when_the_first_has_ended(on_postgresql: Database) -> None:
    order: list[str] = []

    def write() -> None:
        with on_postgresql.transaction() as connection:
            order.append(f"the second begins and sees {numbers(on_postgresql)}")
            insert(connection, 3)

    second = threading.Thread(target=write)
    with on_postgresql.transaction() as first:
        second.start()
        wait_until(lambda: is_blocking_a_writer(first), "the second writer waits")
        insert(first, 2)
        order.append("the first ends")
    second.join(30)
    assert order == ["the first ends", "the second begins and sees [1, 2]"]
    assert numbers(on_postgresql) == [1, 2, 3]


def test_a_writer_of_postgresql_that_raised_lets_the_next_begin(on_postgresql: Database) -> None:
    with pytest.raises(RuntimeError), on_postgresql.transaction():
        raise RuntimeError
    with Database(url=on_postgresql.url, lock_patience_seconds=0.05).transaction() as connection:
        insert(connection, 2)
    assert numbers(on_postgresql) == [1, 2]


def test_a_writer_of_postgresql_that_does_not_finish_is_reported(on_postgresql: Database) -> None:
    waiting = Database(url=on_postgresql.url, lock_patience_seconds=0.05)
    with on_postgresql.transaction() as first:
        with pytest.raises(WarehouseLocked) as locked, waiting.transaction() as connection:
            insert(connection, 3)
        assert str(locked.value).startswith(
            f"The warehouse {on_postgresql.name} is locked by {session_of(first)}, and still was after 0.05 s. What"
        )
        insert(first, 2)
    assert "Run the same command again once that has ended its transaction" in str(locked.value)
    assert "\n" not in str(locked.value)
    assert numbers(on_postgresql) == [1, 2]


@pytest.mark.parametrize("statement", ["lock table numbers", "update numbers set number = number"])
def test_a_session_that_locks_a_table_or_a_row_is_reported(on_postgresql: Database, statement: str) -> None:
    writer = Database(url=on_postgresql.url, lock_timeout_seconds=0.05)
    other = sa.create_engine(on_postgresql.url, connect_args={"application_name": "psql"})
    with other.begin() as connection:
        connection.exec_driver_sql(statement)
        with pytest.raises(WarehouseLocked) as locked, writer.transaction() as writing:
            writing.execute(sa.text("update numbers set number = 2"))
        assert f"is locked by {session_of(connection)}, and still was after 0.05 s" in str(locked.value)
    other.dispose()
    assert "(psql, in a transaction since 2" in str(locked.value)


def test_who_may_not_monitor_the_server_learns_which_process_it_is(postgresql: PostgreSQL) -> None:
    url = postgresql.database(unprivileged=True)
    writer = with_numbers(Database(url=url, lock_patience_seconds=0.05))
    with Database(url=as_superuser(url)).transaction() as first:
        pid = first.scalar(sa.text("select pg_backend_pid()"))
        with pytest.raises(WarehouseLocked) as locked, writer.transaction():
            pass
    assert f"is locked by the server's process {pid} (devin-sessions), and still was" in str(locked.value)


def test_writers_of_different_days_write_at_the_same_time_and_of_the_same_day_in_turn(on_postgresql: Database) -> None:
    impatient = Database(url=on_postgresql.url, lock_patience_seconds=0.05)
    with on_postgresql.transaction(alone=False) as first:
        on_postgresql.lock_days(first, DAYS[:2])
        with impatient.transaction(alone=False) as second:
            impatient.lock_days(second, DAYS[2:])
            insert(second, 2)
        with pytest.raises(WarehouseLocked) as locked, impatient.transaction(alone=False) as third:
            impatient.lock_days(third, DAYS[1:])
        assert f"is locked by {session_of(first)}, and still was after 0.05 s" in str(locked.value)
        insert(first, 3)
    assert numbers(on_postgresql) == [1, 2, 3]


@pytest.mark.parametrize("first_is_alone", [True, False])
def test_who_writes_days_and_who_writes_everything_wait_for_each_other(
    on_postgresql: Database, first_is_alone: bool
) -> None:
    impatient = Database(url=on_postgresql.url, lock_patience_seconds=0.05)

    def begin(database: Database, connection: sa.Connection, alone: bool) -> None:
        if not alone:
            database.lock_days(connection, DAYS)

    with on_postgresql.transaction(alone=first_is_alone) as first:
        begin(on_postgresql, first, first_is_alone)
        second = impatient.transaction(alone=not first_is_alone)
        with pytest.raises(WarehouseLocked) as locked, second as connection:
            begin(impatient, connection, not first_is_alone)
        assert f"is locked by {session_of(first)}, and still was after 0.05 s" in str(locked.value)


def test_many_writers_of_the_same_days_in_any_order_never_wait_in_a_circle(on_postgresql: Database) -> None:
    def write(number: int) -> None:
        days = random.Random(number).sample(DAYS, len(DAYS))
        with on_postgresql.transaction(alone=False) as connection:
            on_postgresql.lock_days(connection, days)
            for day in days:
                connection.execute(sa.text("update turns set number = number + 1 where day = :day"), {"day": day})

    with on_postgresql.transaction() as connection:
        connection.execute(sa.text("create table turns (day date primary key, number integer)"))
        connection.execute(sa.text("insert into turns values (:day, 0)"), [{"day": day} for day in DAYS])
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write, range(48)))
    with on_postgresql.transaction(read_only=True) as connection:
        assert set(connection.scalars(sa.text("select number from turns"))) == {48}


def test_after_the_wait_for_other_writers_the_shorter_limit_for_tables_holds(on_postgresql: Database) -> None:
    database = Database(url=on_postgresql.url, lock_timeout_seconds=7, lock_patience_seconds=300)
    for alone in (True, False):
        with database.transaction(alone=alone) as connection:
            if not alone:
                database.lock_days(connection, DAYS)
            assert connection.scalar(sa.text("show lock_timeout")) == "7s"


def test_with_no_time_to_wait_a_writer_of_postgresql_does_not_wait_at_all(on_postgresql: Database) -> None:
    outcomes: list[str] = []

    def write() -> None:
        try:
            with Database(url=on_postgresql.url, lock_patience_seconds=0).transaction():
                outcomes.append("it waited")
        except WarehouseLocked as error:
            outcomes.append(str(error))

    second = threading.Thread(target=write)
    with on_postgresql.transaction():
        second.start()
        second.join(2)
        assert outcomes, "it waits"
    second.join(30)
    assert "is locked by the server's process" in outcomes[0]


def test_a_reader_of_postgresql_waits_for_no_writer_and_sees_the_old_rows(on_postgresql: Database) -> None:
    reader = Database(url=on_postgresql.url, lock_patience_seconds=0.05)
    with on_postgresql.transaction() as connection:
        insert(connection, 2)
        connection.execute(sa.text("delete from numbers where number = 1"))
        assert numbers(reader) == [1]
    assert numbers(reader) == [2]


def test_a_writer_of_postgresql_waits_for_no_reader(on_postgresql: Database) -> None:
    writer = Database(url=on_postgresql.url, lock_patience_seconds=0.05)
    with on_postgresql.transaction(read_only=True) as reading:
        assert reading.execute(sa.text("select count(*) from numbers")).scalar_one() == 1
        with writer.transaction() as connection:
            insert(connection, 2)
    assert numbers(on_postgresql) == [1, 2]
