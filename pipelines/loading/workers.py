"""Asks a bounded number of questions at once, in batches that are awaited together."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Self

Question = Callable[[], Awaitable[None]]


class Workers:
    """Asks up to `number` questions at once; an async context manager. After an exception, no more are asked."""

    def __init__(self, number: int) -> None:
        self.error: BaseException | None = None
        self._number = number
        self._waiting: asyncio.PriorityQueue[tuple[int, int, Batch, Question]] = asyncio.PriorityQueue()
        self._added = itertools.count()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._number)]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, priority: int, batch: "Batch", question: Question) -> None:
        """Let a worker ask `question`; a higher `priority` goes first."""
        self._waiting.put_nowait((-priority, next(self._added), batch, question))

    async def _work(self) -> None:
        while True:
            *_, batch, question = await self._waiting.get()
            await batch.ask(question)


class Batch:
    """Questions that are awaited together; each may add others."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._open = 0
        self._done = asyncio.get_running_loop().create_future()

    def add(self, question: Question, priority: int = 0) -> None:
        """Let `question` be asked; a higher `priority` goes first."""
        self._open += 1
        self._workers.add(priority, self, question)

    async def ask(self, question: Question) -> None:
        """Ask `question`; a worker calls this."""
        try:
            if self._workers.error is None:
                await question()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # even an interrupt must end the wait for this question
            self._workers.error = self._workers.error or error
        self._open -= 1
        if not self._open:
            self._done.set_result(None)

    async def all_asked(self) -> None:
        """Wait until every question was asked. Raises the first exception of a question."""
        if self._open:
            await self._done
        if self._workers.error is not None:
            raise self._workers.error
