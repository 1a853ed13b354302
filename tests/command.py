"""The command in a process of its own, without a second of imports each time: one that has them forks for each call.

Run as `python tests/command.py SOCKET` it is the process that forks. A child gets the caller's environment, its files,
and nothing of an earlier call; it runs `wardstream.main` to the interpreter's end, as `python wardstream.py` does.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUEST_BYTES = 1 << 17  # arguments and an environment, in one datagram
SECONDS = 280


def wardstream(
    *arguments: str, environment: Mapping[str, str] | None = None, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would. Whatever ends the wait, TimeoutError after 280 s too, ends the command."""
    given = json.dumps([arguments, dict(os.environ if environment is None else environment)]).encode()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, ExitStack() as open_files:
        files = [open_files.enter_context(tempfile.TemporaryFile()) for _ in ("stdin", "stdout", "stderr")]
        files[0].write(typed.encode())
        files[0].seek(0)
        with theirs:
            socket.send_fds(_forking(), [given], [*(one.fileno() for one in files), theirs.fileno()])
        pid = int(ours.recv(16))
        try:
            ours.settimeout(SECONDS)
            code = int(ours.recv(16))
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        for one in files:
            one.seek(0)
        said, complained = (one.read().decode() for one in files[1:])
    return subprocess.CompletedProcess(arguments, code, said, complained)


@cache
def _forking() -> socket.socket:
    """A way to the process that forks; it ends when nobody holds this end any more."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        run = [sys.executable, __file__, str(theirs.fileno())]
        subprocess.Popen(run, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return ours


def _fork(requests: socket.socket) -> None:
    """Returns in a child, which is to run the command, and never in the process that forks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests; their last `down` still needs this process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    while True:
        given, files, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 4)
        if not given:
            os._exit(0)
        if os.fork():
            for one in files:
                os.close(one)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if pid := os.fork():  # the one between waits, so that calls may run beside each other
            with socket.socket(fileno=files[3]) as answer:
                answer.send(b"%d" % pid)
                answer.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os._exit(0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        requests.close()
        for number, one in enumerate(files):
            if number < 3:
                os.dup2(one, number)
            os.close(one)
        arguments, environment = json.loads(given)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["wardstream.py", *arguments]
        return


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    import skops.io  # noqa: F401 - this and the next: what some commands import only when they need it

    from consumers import charts, models, similar, stats  # noqa: F401
    from wardstream import main

    _fork(socket.socket(fileno=int(sys.argv[1])))
    main()
