"""Ports on this machine that a test may tell a process to listen on."""

import itertools
import random
import socket

# Systems give out ephemeral ports from 32768 (Linux) or 49152 (IANA), so no server of another test gets one of these.
_CANDIDATES = iter(random.SystemRandom().sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """A port that nothing listens on, and that no server which lets the system choose its port will get.

    A port that the system chose and that was closed again could be given to another test's server at any moment.
    """
    for port in itertools.islice(_CANDIDATES, 1_000):
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise AssertionError("no port is free between 20000 and 32000")
