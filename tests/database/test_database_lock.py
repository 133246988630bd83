"""One writer at a time: what writers and readers wait for, on a real DuckDB file and a real PostgreSQL."""

import threading

import pytest
import sqlalchemy as sa

from resources.database import Database
from resources.database_errors import WarehouseLocked
from tests.support.databases import database_at, insert, is_blocking_a_writer, numbers
from tests.support.processes import another_process
from tests.support.waiting import wait_until


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
    with Database(url=on_postgresql.url, lock_timeout_seconds=0.05).transaction() as connection:
        insert(connection, 2)
    assert numbers(on_postgresql) == [1, 2]


def test_a_writer_of_postgresql_that_does_not_finish_is_reported(on_postgresql: Database) -> None:
    waiting = Database(url=on_postgresql.url, lock_timeout_seconds=0.05)
    with on_postgresql.transaction() as first:
        with pytest.raises(WarehouseLocked) as locked, waiting.transaction() as connection:
            insert(connection, 3)
        insert(first, 2)
    message = str(locked.value)
    assert message.startswith(
        f"The warehouse {on_postgresql.name} is locked by another process, and still was after 0.05 s"
    )
    assert "run the same command again" in message
    assert "\n" not in message
    assert numbers(on_postgresql) == [1, 2]


def test_with_no_time_to_wait_a_writer_of_postgresql_does_not_wait_at_all(on_postgresql: Database) -> None:
    outcomes: list[str] = []

    def write() -> None:
        try:
            with Database(url=on_postgresql.url, lock_timeout_seconds=0).transaction():
                outcomes.append("it waited")
        except WarehouseLocked as error:
            outcomes.append(str(error))

    second = threading.Thread(target=write)
    with on_postgresql.transaction():
        second.start()
        second.join(2)
        assert outcomes, "it waits"
    second.join(30)
    assert "is locked by another process" in outcomes[0]


def test_a_reader_of_postgresql_waits_for_no_writer_and_sees_the_old_rows(on_postgresql: Database) -> None:
    reader = Database(url=on_postgresql.url, lock_timeout_seconds=0.05)
    with on_postgresql.transaction() as connection:
        insert(connection, 2)
        connection.execute(sa.text("delete from numbers where number = 1"))
        assert numbers(reader) == [1]
    assert numbers(reader) == [2]


def test_a_writer_of_postgresql_waits_for_no_reader(on_postgresql: Database) -> None:
    writer = Database(url=on_postgresql.url, lock_timeout_seconds=0.05)
    with on_postgresql.transaction(read_only=True) as reading:
        assert reading.execute(sa.text("select count(*) from numbers")).scalar_one() == 1
        with writer.transaction() as connection:
            insert(connection, 2)
    assert numbers(on_postgresql) == [1, 2]
