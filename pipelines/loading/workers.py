"""A bounded number of questions under way at once, asked in batches that are waited for together."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Self

Question = Callable[[], Awaitable[None]]


class Workers:
    """A bounded number of questions under way; an async context manager. After an exception nothing more is asked."""

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

    def add(self, first: int, batch: "Batch", question: Question) -> None:
        """Let a worker ask `question`; the higher `first`, the earlier."""
        self._waiting.put_nowait((-first, next(self._added), batch, question))

    async def _work(self) -> None:
        while True:
            *_, batch, question = await self._waiting.get()
            await batch.ask(question)


class Batch:
    """Questions that are waited for together, and that may add others."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._open = 0
        self._done = asyncio.get_running_loop().create_future()

    def add(self, question: Question, first: int = 0) -> None:
        """Let `question` be asked; the higher `first`, the earlier."""
        self._open += 1
        self._workers.add(first, self, question)

    async def ask(self, question: Question) -> None:
        """What a worker does."""
        try:
            if self._workers.error is None:
                await question()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # whatever ended the question ends the wait for it
            self._workers.error = self._workers.error or error
        self._open -= 1
        if not self._open:
            self._done.set_result(None)

    async def all_asked(self) -> None:
        """Wait until none is left. Raises the first exception of a question."""
        if self._open:
            await self._done
        if self._workers.error is not None:
            raise self._workers.error
