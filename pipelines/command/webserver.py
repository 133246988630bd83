"""The Dagster UI for one person on this machine, and the daemon that runs the schedule beside it.

Dagster's own webserver answers every page that a browser has open: it looks at neither `Host` nor `Origin`, and takes
GraphQL from any of them. So its application is served here behind a check of both. What this module takes of Dagster is
what `dagster_webserver/cli.py` does in `dagster_webserver()`; look there when Dagster is upgraded.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.settings import PROJECT

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")
WORKSPACE = PROJECT / "workspace.yaml"
_CLOSING_SECONDS = 5
_ENDING_SECONDS = 60  # the daemon ends its own children first


class CannotServe(Exception):
    """The UI can't be served, or not with the schedule. The message says why and what to do."""


_REFUSAL = PlainTextResponse(
    "A page of another site asked for this, and the Dagster UI answers its own pages alone. To open it, type its "
    "address in the browser.\n",
    status_code=403,
)


class OwnPagesOnly:
    """Lets requests through that no page of another site made; the others get 403 before Dagster sees them.

    A browser says in `Sec-Fetch-Site` whose page it was, and with a POST or a WebSocket in `Origin`. Programs that are
    no browsers send neither.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not _is_from_elsewhere(Headers(scope=scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it is accepted, this is a 403
        else:
            await _REFUSAL(scope, receive, send)


def _is_from_elsewhere(headers: Headers) -> bool:
    own = f"http://{headers.get('host', '')}"
    return headers.get("origin", own) != own or headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def guarded(app: ASGIApp) -> ASGIApp:
    """`app` for its own pages: another site gets 403, and another `Host` 400, as a name that was pointed here does."""
    return TrustedHostMiddleware(OwnPagesOnly(app), allowed_hosts=HOSTS, www_redirect=False)


def serve(instance: dg.DagsterInstance, port: int) -> None:
    """Serve the UI at `port` of 127.0.0.1 and run the daemon, until a signal ends both. Raises CannotServe."""
    # It is Python's own, but a shell that starts this in the background makes it, and its children, deaf to SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))  # so that the children end as well
    instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3_600, max_overflow=20)
    try:
        with (
            _listening(port) as listening,
            _daemon() as daemon,
            WorkspaceProcessContext(instance, WorkspaceFileTarget(paths=[str(WORKSPACE)])) as context,
        ):
            app = guarded(DagsterWebserver(context).create_asgi_app())
            server = uvicorn.Server(
                uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_CLOSING_SECONDS)
            )

            def end_with_the_daemon() -> None:
                daemon.wait()
                server.should_exit = True

            threading.Thread(target=end_with_the_daemon, daemon=True).start()
            server.run(sockets=[listening])
            raise CannotServe(
                f"The Dagster daemon, which runs the schedule, ended with exit code {daemon.wait()}; what it said is "
                "above. Start devin-sessions ui again."
            )
    except KeyboardInterrupt:
        pass


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        why = os.strerror(error.errno or 0)  # newer Pythons add words of their own to the error's
        raise CannotServe(
            f"The Dagster UI cannot listen on {ADDRESS}:{port}: {why}. Choose another port with --port, or stop the "
            "program that uses this one."
        ) from None


@contextmanager
def _daemon() -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon, which runs the schedule and the sensors, until the block ends."""
    program = str(Path(sys.executable).parent / "dagster-daemon")
    # In a process group of its own, which Ctrl-C in a terminal doesn't reach: it would end the daemon's code server
    # while a tick uses it. The signal below ends the ticks first.
    process = subprocess.Popen([program, "run", "--workspace", str(WORKSPACE)], process_group=0)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
