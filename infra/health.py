"""Whether this process is alive and whether it can take work: `/livez` and `/readyz` beside its `/metrics`.

Alive says that a restart would not help: the event loop turns and agents that have something to do move. Ready says
that work given to it now would go through. A watchdog acts on the first by itself, since an agent that stops
silently is otherwise found by whoever misses its documents.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socketserver
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from infra import metrics
from infra.settings import settings

Check = Callable[[], str]  # empty: well; else what is wrong, in words of ours
SILENT_EXIT = 9  # exit code of a process that its watchdog ended
LOOP_SECONDS = 30.0  # an event loop that did not turn for so long is stuck
SILENT_SECONDS = 120.0  # an agent with work in hand, and a server that answers, moves within this
STARVED_SECONDS = 30.0  # an agent is given what is on its topic within this
LOOK_SECONDS = 2.0
_TRIES = 50


class Pulse:
    """Of an agent: whether it moves while it has work in hand, and is given what is there for it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._moved = self._fed = time.monotonic()

    def moved(self) -> None:
        self._moved = self._fed = time.monotonic()

    def waits_for(self, events: int) -> None:
        """Tell, once a second or so, how many events there are that the agent was not given yet."""
        if not events:
            self._fed = time.monotonic()

    def trouble(self, busy: bool, answered: float = 0.0) -> str:
        """Empty: well. `answered` is when a server that the agent asks last did; waiting for one is no silence."""
        now = time.monotonic()
        if busy:
            return f"{self._name} stopped moving" if now - max(self._moved, answered) > SILENT_SECONDS else ""
        return f"{self._name} is not given what is on its topic" if now - self._fed > STARVED_SECONDS else ""


class Health:
    """Checks by name. Each is asked from another thread, so it may only read."""

    def __init__(self) -> None:
        self.live: dict[str, Check] = {}
        self.ready: dict[str, Check] = {}

    def trouble(self, checks: dict[str, Check]) -> dict[str, str]:
        return {name: wrong for name, check in list(checks.items()) if (wrong := check())}

    async def watch_loop(self) -> None:
        """Run as a task of the loop that shall be watched."""
        turned = time.monotonic()

        def check() -> str:
            silent = time.monotonic() - turned
            return f"the event loop has not turned for {silent:.0f} s" if silent > LOOP_SECONDS else ""

        self.live["loop"] = check
        while True:
            turned = time.monotonic()
            await asyncio.sleep(1)

    def watchdog(self, end: Callable[[int], Any] = os._exit) -> None:
        """End the process when it is not alive at two looks in a row: one may come right after a SIGCONT."""

        def run() -> None:
            before: dict[str, str] = {}
            while True:
                time.sleep(LOOK_SECONDS)
                now = self.trouble(self.live)
                if both := before.keys() & now.keys():
                    logging.critical("watchdog: %s", "; ".join(now[name] for name in sorted(both)))
                    end(SILENT_EXIT)
                    return
                before = now

        threading.Thread(target=run, name="watchdog", daemon=True).start()

    def answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI: /livez and /readyz as 200 or 503 with JSON; everything else is /metrics."""
        path = environ.get("PATH_INFO", "")
        if path not in ("/livez", "/readyz"):
            shown: Iterable[bytes] = metrics.page(environ, start)
            return shown
        trouble = self.trouble(self.live if path == "/livez" else self.ready)
        start("503 Service Unavailable" if trouble else "200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"ok": not trouble, "trouble": trouble}).encode()]

    def serve(self) -> int:
        """Serve on loopback, on the first free port from `metrics_port` up; gives the port."""
        first = settings().metrics_port
        for port in range(first, first + _TRIES):
            try:
                server = make_server("127.0.0.1", port, self.answer, _Server, _Quiet)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
                return port
        raise OSError(errno.EADDRINUSE, f"no free port from {first} to {first + _TRIES - 1} for metrics")


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """A scrape is no news."""


health = Health()
