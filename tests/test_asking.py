"""With a warehouse in DuckDB, one process at a time asks the API; the others wait, and say for whom."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from pipelines.definitions import definitions_for
from pipelines.loading.asking import asking_alone
from pipelines.loading.progress import Progress
from pipelines.names import JOB
from pipelines.schedules import range_tags
from pipelines.settings import Settings
from resources.database_errors import WarehouseError
from tests.support.begun import begin
from tests.support.command import Here
from tests.support.waiting import wait_until
from tests.support.world import World


class Holder(Progress):
    """Another one who asks the API until somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waited_for = threading.Event()
        self.sentences: list[str] = []

    def held_up(self, sentence: str) -> None:
        self.sentences.append(sentence)
        self.is_waited_for.set()

    @contextmanager
    def asking(self, settings: Settings) -> Iterator[None]:
        is_asking = threading.Event()

        def ask() -> None:
            with asking_alone(settings, "run 0123abcd", self.sentences.append):
                is_asking.set()
                self.is_waited_for.wait(60)

        thread = threading.Thread(target=ask)
        thread.start()
        is_asking.wait(60)
        yield
        thread.join()


def have_said(world: World, text: str, times: int) -> bool:
    """Whether the commands that were begun have printed this so many times."""
    paths = [path for kind in ("output", "errors") for path in world.directory.glob(f"{kind}-*")]
    return "".join(path.read_text("utf-8") for path in paths).count(text) == times


def test_a_run_waits_for_another_process_before_it_asks_and_says_for_whom(world: World) -> None:
    holder = Holder()
    with holder.asking(world.settings):
        result = (
            definitions_for(world.settings, holder)
            .resolve_job_def(JOB)
            .execute_in_process(
                instance=world.instance, tags=range_tags("2025-04-01", "2025-04-02"), raise_on_error=False
            )
        )
    assert result.success
    (sentence,) = holder.sentences
    assert sentence.startswith("Waiting for run 0123abcd (process ")
    logged = [entry.message for entry in world.instance.all_logs(result.run_id)]
    assert sentence in "\n".join(logged)
    assert logged.index(next(line for line in logged if sentence in line)) < next(
        number for number, line in enumerate(logged) if "listed by the API" in line
    )
    assert world.cells() == world.truth("2025-04-01", "2025-04-02")


def test_a_probe_and_a_dry_run_wait_too_but_leave_no_file_where_nothing_was_loaded(world: World, here: Here) -> None:
    assert here("probe", "--until", "2025-04-07")[0] == 0
    assert here("backfill", "2025-04-01", "--dry-run")[0] == 0
    lock = world.settings.asking_lock
    assert lock is not None and not lock.exists()
    for number, arguments in enumerate(
        (("probe", "--until", "2025-04-07"), ("backfill", "2025-04-01", "--dry-run")), 1
    ):
        holder = Holder()
        with holder.asking(world.settings):
            command = begin(world, *arguments)
            wait_until(partial(have_said, world, "Waiting for run 0123abcd", number), "it says that it waits")
            holder.is_waited_for.set()
        assert command.ended().code == 0


def test_processes_that_reach_the_warehouse_by_different_links_take_turns_too(world: World) -> None:
    lock = world.settings.asking_lock
    assert lock is not None
    for link in (world.directory / "link.duckdb", world.directory / "another.duckdb"):
        link.symlink_to(world.database.path)
        world.configure(warehouse_url=f"duckdb:///{link}")
        assert world.settings.asking_lock == lock
    lock.symlink_to(world.directory / "nowhere" / "lock")
    with pytest.raises(WarehouseError, match="Cannot lock"), asking_alone(world.settings, "one", pytest.fail):
        pass


def test_the_first_question_of_the_next_process_keeps_to_the_limit_too(world: World) -> None:
    world.configure(devin_requests_per_minute="120")
    with asking_alone(world.settings, "one", pytest.fail):
        pass
    ended = time.time()
    with asking_alone(world.settings, "another", pytest.fail):
        assert time.time() - ended >= 0.49


def test_others_learn_for_whom_they_wait_even_while_that_one_awaits_its_first_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.configure(devin_requests_per_minute="1")
    lock, noted = world.settings.asking_lock, list[str]()
    assert lock is not None
    with asking_alone(world.settings, "one", pytest.fail):
        pass
    monkeypatch.setattr(time, "sleep", lambda _: noted.append(lock.read_text()))
    with asking_alone(world.settings, "another", pytest.fail):
        assert [text.partition(" (process ")[0] for text in noted] == ["another"]


def test_a_process_that_was_killed_holds_nobody_up(world: World) -> None:
    code = (
        "import os; from pipelines.settings import Settings; from pipelines.loading.asking import asking_alone\n"
        "with asking_alone(Settings.load(), 'killed', print): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    lock = world.settings.asking_lock
    assert lock is not None and lock.read_text().startswith("killed (process ")
    assert lock.stat().st_mode & 0o777 == 0o600
    with asking_alone(world.settings, "next", pytest.fail):
        assert lock.read_text().startswith("next (process ")
    assert float(lock.read_text()) > 0, "when it asked last"


def test_a_lock_that_cannot_be_used_is_reported_and_no_question_asked(world: World, here: Here) -> None:
    lock = world.settings.asking_lock
    assert lock is not None
    lock.mkdir()
    code, _, err = here("backfill", "2025-04-01", "2025-04-01")
    assert code == 1
    assert f"Cannot lock {lock}, so another process might ask the API at the same time: Is a directory" in err
    assert world.source.requests == []


def test_on_postgresql_all_share_one_pace_and_none_waits(world: World) -> None:
    world.configure(warehouse_url="postgresql+psycopg://127.0.0.1/sessions")
    assert world.settings.asking_lock is None
