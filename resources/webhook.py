"""Sends messages to a webhook that accepts Slack's JSON. What to send, and when, is decided elsewhere."""

import asyncio
import os
from collections.abc import Sequence

import httpx

from resources.addresses import check_webhook
from resources.authorities import AuthoritiesRefused, tls_context
from resources.devin_key import without_key
from resources.proxies import ProxyRefused, proxy_for

URL_VARIABLE = "DEVIN_ALERT_WEBHOOK_URL"
TIMEOUT_SECONDS = 10.0
LONGEST_MESSAGE = 2_900
LONGEST_LINE = 600
# Slack reads these three as markup, such as <!channel>.
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class Undelivered(Exception):
    """A message could not be delivered. Says why, and shows only the host of the address."""


def as_text(lines: Sequence[str]) -> str:
    """One message made of these lines: without the key, with markup escaped, and not too long for Slack."""
    escaped = [_shorten(line).translate(_ESCAPES) for line in without_key("\n".join(lines)).splitlines()]
    shown: list[str] = []
    for number, line in enumerate(escaped):
        if sum(map(len, shown)) + len(shown) + len(line) > LONGEST_MESSAGE:
            return "\n".join([*shown, f"… and {len(escaped) - number} more lines"])
        shown.append(line)
    return "\n".join(shown)


def _shorten(line: str) -> str:
    over = len(line) - LONGEST_LINE
    return f"{line[:LONGEST_LINE]}… and {over} more characters" if over > 0 else line


def send(text: str) -> None:
    """Post `text` to the environment's webhook, once. Raises Undelivered."""
    try:
        url = check_webhook(os.environ.get(URL_VARIABLE, ""))
    except ValueError as error:
        raise Undelivered(f"{URL_VARIABLE} is refused: {error}") from None
    try:
        tls, proxy = tls_context(url), proxy_for(url)
    except (AuthoritiesRefused, ProxyRefused) as error:
        raise Undelivered(str(error)) from None
    status = asyncio.run(_post(url, text, httpx.AsyncHTTPTransport(verify=tls, proxy=proxy)))
    if not 200 <= status < 300:
        raise Undelivered(f"{httpx.URL(url).host} returned {status}")


async def _post(url: str, text: str, through: httpx.AsyncHTTPTransport) -> int:
    """The status of the response. Its body is not read."""
    request = httpx.Request("POST", url, json={"text": text})
    host = request.url.host
    try:
        # Not through httpx's client, which logs the whole address.
        async with asyncio.timeout(TIMEOUT_SECONDS), through as transport:
            response = await transport.handle_async_request(request)
            await response.aclose()
            return response.status_code
    except TimeoutError:
        raise Undelivered(f"{host} did not respond within {TIMEOUT_SECONDS:g} s") from None
    except httpx.TransportError as error:
        raise Undelivered(f"the connection to {host} failed ({type(error).__name__})") from None
