"""The one place that asks again: which failures, how often, and when it is given up."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx

from resources.calls import MOST_LATENCIES, Calls
from resources.devin_answers import CameBack, Question, limit_headers, parse_answer, retry_after_of, sanitized
from resources.devin_errors import ContractBroken, DevinAPIError, Rejected, SourceDown, Unavailable
from resources.devin_versions import V2, V3, Params
from resources.outage import GivenUp, Outage, Passing, waiting
from resources.pace import Pace, RefusedAlone

MAX_BODY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class RetryRules:
    """`max_tries` is how often one question is tried in all, `timeout_seconds` how long one try may take, from
    connecting to the last byte. `max_backoff_seconds` bounds a pause that the source did not ask for,
    `patience_seconds` one that it did, and how long nobody may be answered.
    """

    max_tries: int = 5
    timeout_seconds: float = 30.0
    backoff_seconds: float = 0.5
    max_backoff_seconds: float = 30.0
    patience_seconds: float = 300.0
    max_connections: int = 64


@dataclass(eq=False)
class Retries:
    """Asks over an open connection pool, and again where another try may go better. Safe for many tasks at once."""

    rules: RetryRules
    version: V2 | V3
    http: httpx.AsyncClient = field(repr=False)
    calls: Calls
    pace: Pace

    def __post_init__(self) -> None:
        self._outage = Outage(
            self.pace,
            self.rules.patience_seconds,
            self.rules.backoff_seconds,
            self.rules.max_backoff_seconds,
            self.calls.wait,
        )
        self._refused_alone = RefusedAlone()

    async def get(self, question: Question) -> dict[str, Any]:
        """The JSON object that answers, after as many tries as are allowed. The one place that retries.

        Tries that failed because the source answered nobody don't count, up to as many again.
        """
        tries = excused = 0
        began: float | None = None
        while True:
            tries += 1
            self.calls.retried += tries > 1
            asked_at = await self._turn(question)
            began = asked_at if began is None else began
            try:
                answer = await self._answer(question)
                self._refused_alone.answered(question.ids)
                return answer
            except Passing as error:
                failure = error
            now = asyncio.get_running_loop().time()
            is_beyond = self._outage.is_beyond(failure)
            pause = self._outage.pause(tries)
            if failure.pauses_all and failure.retry_after is not None:
                pause = failure.retry_after
            pauses_all = failure.pauses_all and not self._refused_alone.refused(
                question.ids, now, self.pace.last_answered
            )
            if pauses_all and not is_beyond:
                self.pace.refused(asked_at, pause)
                self.calls.wait(waiting(str(failure), now, now + pause, now))
            is_last = is_beyond or tries - excused >= self.rules.max_tries or not self._may_retry()
            if is_beyond or ((tries > 1 or is_last) and self.pace.last_answered < asked_at):
                found, was_out = await self._sit_out(question, failure, max(began, self.pace.last_answered))
                if found is not None:
                    return found
                if was_out and excused < self.rules.max_tries:
                    excused += 1
                    continue
            if is_last:
                raise Unavailable(
                    f"{question.asked}: {failure}, after {tries} {'tries' if tries > 1 else 'try'}. "
                    "The source or the way to it is in trouble; run the same again later."
                )
            if not pauses_all:  # where everybody pauses, the pace lets this question wait too
                await asyncio.sleep(pause)

    async def _turn(self, question: Question) -> float:
        """Wait until `question` may be asked. Returns when, on the event loop's clock."""
        wanted_at = asyncio.get_running_loop().time()
        asked_at = await self.pace.turn()
        self.calls.held_back(wanted_at, asked_at)
        try:
            self._outage.check()
        except GivenUp as error:
            raise self._down(question.asked, error) from None
        return asked_at

    async def _sit_out(self, question: Question, failure: Passing, since: float) -> tuple[dict[str, Any] | None, bool]:
        """Wait until the source answers somebody: the answer, if it was to this question, and whether it was out.

        Whether the question or the source is at fault is told by a question that was answered before, if any was.
        """
        known_good: Question | None = self._outage.known_good
        answer: dict[str, Any] | None = None
        refusal: DevinAPIError | None = None

        async def probe() -> None:
            nonlocal answer, refusal
            self.calls.retried += 1
            try:
                found = await self._answer(known_good or question)
                answer = found if known_good is None else None
            except (Rejected, ContractBroken, Unavailable) as error:
                if known_good is None:
                    refusal = error
                elif isinstance(error, Unavailable):
                    raise Passing(str(error)) from None

        try:
            was_out = await self._outage.sit_out(failure, since, probe, is_known_good=known_good is not None)
        except GivenUp as error:
            raise self._down(question.asked, error) from None
        if refusal is not None:
            raise refusal
        return answer, was_out

    def _down(self, asked: str, error: GivenUp) -> SourceDown:
        self.calls.gave_up = True
        return SourceDown(
            f"{asked}: {error}. The load ended here, because DEVIN_PATIENCE_SECONDS={self.rules.patience_seconds:g}. "
            f"What was stored before is kept; run the same command again {error.when}."
        )

    def _may_retry(self) -> bool:
        """Whether retries are still few for the size of the load, so that a dying source is not hammered."""
        size = max(self.calls.expected, self.calls.sent)
        allowance = max(self.rules.max_tries, 2 * min(self.rules.max_connections, size)) + size // 5
        return self.calls.retried - self._outage.excused < allowance

    async def _answer(self, question: Question) -> dict[str, Any]:
        """One try. Raises Passing if another may go better."""
        came_back = await self._send(question.path, question.params)
        try:
            answer = parse_answer(came_back, question, self.version)
        except (Rejected, ContractBroken):
            self._answered()
            raise
        self._outage.known_good = question
        self._answered()
        return answer

    def _answered(self) -> None:
        self.calls.waiting = None
        self.pace.answered()

    async def _send(self, path: str, params: Params) -> "CameBack":
        self.calls.sent += 1
        sent_at = asyncio.get_running_loop().time()
        body = bytearray()
        outcome = "given up"
        try:
            async with (
                asyncio.timeout(self.rules.timeout_seconds),
                self.http.stream("GET", path, params=params) as response,
            ):
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        outcome = "answer too long"
                        raise ContractBroken(
                            f"Asking {path}: the answer is longer than {MAX_BODY_BYTES:,} bytes and was cut off. "
                            "Check DEVIN_API_URL: this does not look like the Devin API."
                        )
                outcome = str(response.status_code)
                if len(self.calls.latencies) < MOST_LATENCIES:
                    self.calls.latencies.append(asyncio.get_running_loop().time() - sent_at)
                self.calls.limit_headers = limit_headers(response.headers) or self.calls.limit_headers
                content_type = response.headers.get("Content-Type", "")
                return CameBack(response.status_code, content_type, bytes(body), retry_after_of(response.headers))
        except TimeoutError:
            outcome = "no answer in time"
            raise Passing(f"no whole answer within {self.rules.timeout_seconds:g} s") from None
        except (httpx.TransportError, aiohttp.ClientError) as error:
            outcome = "connection failed"
            raise Passing(f"the connection failed: {sanitized(str(error)) or type(error).__name__}") from None
        finally:
            self.calls.outcomes[outcome] += 1
