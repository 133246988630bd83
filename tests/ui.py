"""The Dagster UI as `devin-sessions ui` serves it, for the tests that look at it, its pictures and its measurement."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import tenacity

from pipelines.settings import PROJECT


@contextmanager
def dagster_ui(environment: Mapping[str, str]) -> Iterator[str]:
    """The address of the UI in this environment, from when it answers until the block ends: Ctrl-C, as a person would.

    What it prints goes where the caller's output goes.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.cli", "ui", "--port", str(port)]
    process = subprocess.Popen(command, cwd=PROJECT, env={**os.environ, **environment}, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((urllib.error.URLError, ConnectionError)),
            wait=tenacity.wait_fixed(0.1),
            stop=tenacity.stop_after_delay(120),
            reraise=True,
        )(lambda: urllib.request.urlopen(f"{url}/server_info").close())
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
