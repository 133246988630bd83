"""Keeps the UI's code server running: Dagster starts it once, and without it the UI can launch nothing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.remote_representation.code_location import CodeLocation, GrpcServerCodeLocation
from dagster._core.remote_representation.grpc_server_registry import ServerRegistryEntry
from dagster._core.workspace.context import WorkspaceProcessContext

from pipelines.command.screen import say

_LOOK_SECONDS = 2.0


@contextmanager
def kept_running(context: WorkspaceProcessContext) -> Iterator[None]:
    """Until the block ends, start a code server again that was killed, as when the memory was full.

    The daemon, which has a code server of its own, does so by itself within a minute.
    """
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(_LOOK_SECONDS):
            for name, entry in context.get_current_workspace().code_location_entries.items():
                if entry.code_location and _has_ended(entry.code_location) and not stop.is_set():
                    say(
                        "The process that runs the code for the UI was killed, and is being started again. Runs in "
                        "progress have processes of their own.",
                        "code_server_restarted",
                    )
                    context.reload_code_location(name)

    keeping = threading.Thread(target=keep)
    keeping.start()
    try:
        yield
    finally:
        stop.set()
        keeping.join()


def _has_ended(location: CodeLocation) -> bool:
    origin = location.origin
    if not isinstance(location, GrpcServerCodeLocation) or not isinstance(
        origin, ManagedGrpcPythonEnvCodeLocationOrigin
    ):
        return False
    registry = location.grpc_server_registry
    server = registry.get_grpc_server_entry(origin) if registry else None
    return isinstance(server, ServerRegistryEntry) and server.process.server_process.poll() is not None
