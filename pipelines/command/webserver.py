"""The Dagster UI for one person on this machine, together with the daemon that runs the schedule.

Dagster's own webserver accepts GraphQL from any page that is open in a browser: it checks neither `Host` nor `Origin`.
So this module serves its application behind a check of both. It uses Dagster the way `dagster_webserver()` in
`dagster_webserver/cli.py` does; compare the two when Dagster is upgraded.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import dagster as dg
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.command import code_server, interrupts
from pipelines.command.dagster_home import WORKSPACE, using_run_record
from pipelines.command.own_group import kill_own_group
from pipelines.command.recorded_runs import Run, unfinished_runs, what_of
from pipelines.command.screen import is_json, say
from pipelines.follow import unfinished_backfills
from pipelines.pool import limit_the_pool
from pipelines.settings import Settings

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")
_SHUTDOWN_SECONDS = 5
_DAEMON_SHUTDOWN_SECONDS = 60  # the daemon stops its own children first


class CannotServe(Exception):
    """The UI, or the daemon for the schedule, can't run. The message says why and what to do."""


_REFUSAL = PlainTextResponse(
    "This request came from a page of another site, and the Dagster UI only accepts requests from its own pages. To "
    "open the UI, type its address in the browser.\n",
    status_code=403,
)


class OwnPagesOnly:
    """Returns 403 to requests made by pages of other sites, before Dagster sees them, and passes on all others.

    Browsers send the origin of the page in `Sec-Fetch-Site`, and for POST and WebSocket also in `Origin`. Other
    programs send neither.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not _is_from_elsewhere(Headers(scope=scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # a close before the accept is sent as 403
        else:
            await _REFUSAL(scope, receive, send)


def _is_from_elsewhere(headers: Headers) -> bool:
    own = f"http://{headers.get('host', '')}"
    return headers.get("origin", own) != own or headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def guarded(app: ASGIApp) -> ASGIApp:
    """`app` for its own pages only: other sites get 403, and other `Host` headers 400, against DNS rebinding."""
    return TrustedHostMiddleware(OwnPagesOnly(app), allowed_hosts=HOSTS, www_redirect=False)


class _Server(uvicorn.Server):
    """Says where the UI is as soon as it answers there."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            address, port = listening.getsockname()
            say(
                f"The Dagster UI: http://{address}:{port} (stop with Ctrl-C; the schedule runs as long as this command)"
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal. At a second one, uvicorn would cancel what is stopping and print a traceback."""
        if not self.should_exit:
            super().handle_exit(sig, frame)


def serve(instance: dg.DagsterInstance, settings: Settings, port: int) -> None:
    """Serve the UI at `port` of 127.0.0.1 and run the daemon, until SIGINT or SIGTERM; then say which runs go on.

    Raises CannotServe and HomeUnusable. Port 0 is any free one. A signal raises nothing: in Dagster's code that starts
    or stops a process, an exception would end in a traceback. Before the UI and the daemon have begun, it kills this
    process's group.
    """
    with using_run_record():
        limit_the_pool(instance, settings)
    workspace = str(Path(instance.root_directory) / WORKSPACE)
    instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3_600, max_overflow=20)
    with (
        _listening(port) as listening,
        WorkspaceProcessContext(instance, WorkspaceFileTarget(paths=[workspace])) as context,
    ):
        app = guarded(DagsterWebserver(context).create_asgi_app())
        # Dagster's application has nothing to do when it starts or ends. If uvicorn waits for it all the same, a stop
        # can end in a traceback on a busy machine.
        config = uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=_SHUTDOWN_SECONDS)
        server = _Server(config)
        stop = threading.Event()

        def end(*_: object) -> None:
            stop.set()
            server.should_exit = True  # even if it has not started yet

        for number in interrupts.SIGNALS:
            signal.signal(number, end)
        with code_server.kept_running(context), _daemon(instance, workspace) as daemon:

            def stop_with_the_daemon() -> None:
                daemon.wait()
                server.should_exit = True

            threading.Thread(target=stop_with_the_daemon, daemon=True).start()
            if not stop.is_set():
                server.run(sockets=[listening])  # raises the signal that ended it again
            if not stop.is_set():
                raise CannotServe(
                    f"The Dagster daemon, which runs the schedule, ended with exit code {daemon.wait()}; its output is "
                    "above. Start devin-sessions ui again."
                )
    with using_run_record():
        left, backfills = unfinished_runs(instance, settings), unfinished_backfills(instance, settings)
    if left or backfills:
        say(what_goes_on(left, backfills), "runs_go_on", runs=[asdict(run) for run in left], backfills=backfills)


def what_goes_on(left: list[Run], backfills: list[str]) -> str:
    """What becomes of the runs and the backfills that the UI leaves behind."""
    queued = [run for run in left if run.outcome in ("queued", "not_started")]
    running = [run for run in left if run not in queued]
    sentences = []
    if running:
        sentences.append(
            f"Still running, and goes on until it ends: {what_of(running)}. Watch it with devin-sessions status; to "
            "stop it, start devin-sessions ui again and terminate it there."
        )
    if queued:
        sentences.append(f"Still queued, and starts when devin-sessions ui runs again: {what_of(queued)}.")
    if backfills:
        sentences.append(
            f"Not finished, and goes on when devin-sessions ui runs again: backfill {', '.join(backfills)}."
        )
    return " ".join(sentences)


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        why = os.strerror(error.errno or 0)  # newer versions of Python add their own words to the error's
        raise CannotServe(
            f"The Dagster UI cannot listen on {ADDRESS}:{port}: {why}. Choose another port with --port, or stop the "
            "program that uses this one."
        ) from None


@contextmanager
def _daemon(instance: dg.DagsterInstance, workspace: str) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon, which runs the schedule and the sensors, until the block ends."""
    program = [sys.executable, "-m", "dagster._daemon"]  # its script may be elsewhere, as after pip install --target
    log = ["--log-format", "json"] if is_json() else []
    began = time.time()
    process = subprocess.Popen([*program, "run", "--workspace", workspace, *log])
    try:
        yield process
    finally:
        if process.poll() is None and not _has_started(instance, began):
            kill_own_group()  # in the middle of its start, a signal would make it print a traceback
        process.terminate()
        try:
            process.wait(_DAEMON_SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _has_started(instance: dg.DagsterInstance, began: float) -> bool:
    """Whether a daemon has given a sign of life since `began`, in seconds since the epoch."""
    return any(heartbeat.timestamp >= began for heartbeat in instance.get_daemon_heartbeats().values())
