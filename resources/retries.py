"""The only place that retries: after which failures, how often, and when to give up."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import httpx

from resources.calls import MOST_LATENCIES, Calls
from resources.compression import CannotDecompress, decompressed
from resources.connecting import lasting_reason
from resources.devin_answers import (
    Request,
    Response,
    parse_response,
    parse_retry_after,
    sanitized,
)
from resources.devin_errors import ContractBroken, DevinAPIError, Misrouted, Rejected, SourceDown, Unavailable
from resources.devin_versions import V2, V3
from resources.limit_headers import limit_headers, seconds_until_reset
from resources.outage import GaveUp, Outage, TransientFailure, make_waiting
from resources.pace import Pace, RefusalTracker

MAX_BODY_BYTES = 4 * 1024 * 1024
_SAME_RESET_SECONDS = 0.1


@dataclass(frozen=True)
class RetryRules:
    """When to retry, and when to give up.

    `max_tries` is the number of tries per request, `timeout_seconds` the limit for one try, from connecting to the
    last byte. `max_backoff_seconds` limits a pause that the API did not ask for; `patience_seconds` one that it did
    ask for, and the time for which no request at all is answered. `activity` is what ends when it is over.
    """

    max_tries: int = 5
    timeout_seconds: float = 30.0
    backoff_seconds: float = 0.5
    max_backoff_seconds: float = 30.0
    patience_seconds: float = 300.0
    max_connections: int = 64
    activity: str = "load"


@dataclass(eq=False)
class Retries:
    """Sends requests over a connection pool and retries what may succeed later. Safe for concurrent tasks."""

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
            self.calls.record_wait,
        )
        self._base_url = str(self.http.base_url).rstrip("/")
        self._refusals = RefusalTracker()
        self._reset_at = -math.inf

    async def get(self, request: Request) -> dict[str, Any]:
        """The JSON object of the response. Raises a DevinAPIError once no further try is allowed.

        Tries that failed because of an outage don't count, up to `max_tries` of them.
        """
        tries = excused = 0
        began: float | None = None
        while True:
            tries += 1
            self.calls.retried += tries > 1
            asked_at = await self._turn(request)
            began = asked_at if began is None else began
            try:
                answer = await self._try_once(request)
                self._refusals.record_answer(request.ids)
                return answer
            except TransientFailure as error:
                failure = error
            now = asyncio.get_running_loop().time()
            is_beyond_patience = self._outage.exceeds_patience(failure)
            pause = self._outage.pause(tries)
            if failure.pauses_all and failure.retry_after is not None:
                pause = failure.retry_after
            pauses_all = failure.pauses_all and not self._refusals.record_refusal(
                request.ids, now, self.pace.last_answered
            )
            if pauses_all and not is_beyond_patience:
                self.pace.record_refusal(asked_at, pause)
                self.calls.record_wait(make_waiting(str(failure), now, now + pause, now))
            is_last = is_beyond_patience or tries - excused >= self.rules.max_tries or not self._may_retry()
            if is_beyond_patience or ((tries > 1 or is_last) and self.pace.last_answered < asked_at):
                found, was_out = await self._sit_out(request, failure, max(began, self.pace.last_answered))
                if found is not None:
                    return found
                if was_out and excused < self.rules.max_tries:
                    excused += 1
                    continue
            if is_last:
                raise Unavailable(
                    f"{request.description}: {failure}, after {tries} {'tries' if tries > 1 else 'try'}. "
                    "The API or the network is failing. Run the same command again later."
                )
            if not pauses_all:  # if all requests pause, the pace makes this one wait too
                await asyncio.sleep(pause)

    async def _turn(self, request: Request) -> float:
        """Wait until a request may be sent. Returns the time, on the event loop's clock."""
        wanted_at = asyncio.get_running_loop().time()
        asked_at = await self.pace.turn()
        self.calls.record_hold(wanted_at, asked_at)
        try:
            self._outage.check()
        except GaveUp as error:
            raise self._source_down(request.description, error) from None
        return asked_at

    async def _sit_out(
        self, request: Request, failure: TransientFailure, since: float
    ) -> tuple[dict[str, Any] | None, bool]:
        """Wait until the API answers again. Returns its answer, if to `request`, and whether there was an outage.

        A request that was answered before, if there is one, shows whether the API or `request` is at fault.
        """
        known_good: Request | None = self._outage.known_good
        answer: dict[str, Any] | None = None
        refusal: DevinAPIError | None = None

        async def probe() -> None:
            nonlocal answer, refusal
            self.calls.retried += 1
            try:
                found = await self._try_once(known_good or request)
                answer = found if known_good is None else None
            except (Rejected, ContractBroken, Unavailable) as error:
                if known_good is None:
                    refusal = error
                elif isinstance(error, Unavailable):
                    raise TransientFailure(str(error)) from None

        try:
            was_out = await self._outage.sit_out(failure, since, probe, is_known_good=known_good is not None)
        except GaveUp as error:
            raise self._source_down(request.description, error) from None
        if refusal is not None:
            raise refusal
        return answer, was_out

    def _source_down(self, description: str, error: GaveUp) -> SourceDown:
        self.calls.gave_up = True
        patience = self.rules.patience_seconds
        ended = f"The {self.rules.activity} ended, since it waits {patience:g} s at most."
        if self.rules.activity == "load":
            ended = f"The load stopped because DEVIN_PATIENCE_SECONDS={patience:g}. Everything stored before is kept."
        return SourceDown(f"{description}: {error}. {ended} Run the same command again {error.when}.")

    def _may_retry(self) -> bool:
        """Whether retries are still few for the size of the load, so that a failing API is not hammered."""
        size = max(self.calls.expected, self.calls.sent)
        allowance = max(self.rules.max_tries, 2 * min(self.rules.max_connections, size)) + size // 5
        return self.calls.retried - self._outage.excused < allowance

    async def _try_once(self, request: Request) -> dict[str, Any]:
        """Make one try. Raises TransientFailure if another may succeed."""
        asked_at = asyncio.get_running_loop().time()
        response = await self._send(request)
        try:
            answer = parse_response(response, request, self.version)
        except (Rejected, ContractBroken):
            self._record_answer(asked_at)
            raise
        self._outage.known_good = request
        self._record_answer(asked_at)
        return answer

    def _record_answer(self, asked_at: float) -> None:
        self.calls.waiting = None
        self.pace.record_answer(asked_at)

    def _heed_limits(self, headers: Mapping[str, str]) -> None:
        """Pause all requests if the API says that none remains; beyond patience, its next refusal has to say so."""
        found = limit_headers(headers)
        if not found:
            return
        self.calls.limit_headers = found
        pause, now = seconds_until_reset(headers), asyncio.get_running_loop().time()
        if pause is None or pause > self.rules.patience_seconds:
            return
        if now + pause > self._reset_at + _SAME_RESET_SECONDS:  # what is in flight says the same
            self._reset_at = now + pause
            self.pace.pause(pause)
            self.calls.record_wait(make_waiting("the API allows no more requests until then", now, now + pause, now))

    async def _send(self, request: Request) -> Response:
        self.calls.sent += 1
        sent_at, sent_at_utc = asyncio.get_running_loop().time(), datetime.now(UTC)
        body = bytearray()
        outcome = "given up"
        # httpx would parse the URL three times if it had to put it together: a third of what a request costs.
        url = f"{self._base_url}{request.path}?{httpx.QueryParams(request.params)}"
        try:
            async with asyncio.timeout(self.rules.timeout_seconds), self.http.stream("GET", url) as response:
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        break
                headers = dict(response.headers.items())  # their names in lower case
                outcome, encoding = str(response.status_code), headers.get("content-encoding", "")
                if len(body) <= MAX_BODY_BYTES and encoding:
                    body = bytearray(decompressed(bytes(body), encoding, MAX_BODY_BYTES))
                if len(body) > MAX_BODY_BYTES:
                    outcome = "answer too long"
                    raise ContractBroken(
                        f"{request.description}: the response is longer than {MAX_BODY_BYTES:,} bytes and was cut off. "
                        "Check DEVIN_API_URL: this does not look like the Devin API."
                    )
                if len(self.calls.latencies) < MOST_LATENCIES:
                    self.calls.latencies.append(asyncio.get_running_loop().time() - sent_at)
                self.calls.clock.record(headers, sent_at_utc, datetime.now(UTC))
                self._heed_limits(headers)
                content_type = headers.get("content-type", "")
                retry_after = parse_retry_after(headers)
                return Response(response.status_code, content_type, bytes(body), retry_after, request.is_private)
        except TimeoutError:
            outcome = "no answer in time"
            raise TransientFailure(f"no complete response within {self.rules.timeout_seconds:g} s") from None
        except CannotDecompress as error:
            outcome = "not readable"
            if error.is_unknown:
                raise Misrouted(
                    f"{request.description}: something between you and the API returned a response {error}. Check "
                    "DEVIN_API_URL and the proxy, and ask your network administrator. None of it was stored."
                ) from None
            raise TransientFailure(f"the API returned {error}") from None
        except (httpx.TransportError, aiohttp.ClientError) as error:
            outcome = "connection failed"
            if why := lasting_reason(error):
                raise Misrouted(f"{request.description}: {why} Nothing was sent to the API.") from None
            raise TransientFailure(f"the connection failed: {sanitized(str(error)) or type(error).__name__}") from None
        finally:
            self.calls.outcomes[outcome] += 1
