"""A port that nobody listens on, and that nobody's outgoing connection takes before somebody does."""

from __future__ import annotations

import random
import socket

PORTS = range(10_000, 20_000)  # below the ephemeral ones; above them tests/faults has its own


def free_port() -> int:
    """Drawn, so that two runs beside each other do not race for the next free one."""
    while True:
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", random.SystemRandom().choice(PORTS)))
            except OSError:
                continue
            return int(one.getsockname()[1])
