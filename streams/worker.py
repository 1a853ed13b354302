"""Runs the Faust app with all agents in one process, until a signal or a crash."""

from __future__ import annotations

import gc
import logging

import faust

from infra import metrics
from schemas.registry import DOMAINS
from streams import agent  # noqa: F401 - its agents register themselves
from streams.app import app


def run() -> None:
    """Blocks. A crash of an agent ends the process with a code other than 0: the supervisor starts a new one."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("elastic_transport").setLevel(logging.WARNING)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    # Records are trees, not cycles: looking for garbage among a batch's million objects took a fifth of the time.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    logging.info("metrics on port %d; agents: %s", metrics.serve(), ", ".join(DOMAINS))
    faust.Worker(app, loglevel="WARNING", redirect_stdouts=False).execute_from_commandline()
