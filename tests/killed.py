"""An erasure that ends by kill -9 before or after a step is on the ledger: for processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any, NoReturn

from consumers import erase
from infra.keystore import KeyStore
from infra.ledger import Ledger


def exit_code(person: str, step: str, when: str) -> int | None:
    """Of an erasure that is killed there, in a process that was forked from one which has the imports already."""
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload([__name__])
    child = forked.Process(target=_erase, args=(person, step, when))
    child.start()
    child.join(60)
    return child.exitcode


def _erase(person: str, last: str, when: str) -> None:
    request, done = Ledger.request, Ledger.done

    def requested(self: Ledger, *given: Any) -> NoReturn:
        if when == "after":
            request(self, *given)
        _die()

    def stepped(self: Ledger, one: Any, step: str, found: Any) -> None:
        if step == last and when == "before":
            _die()
        done(self, one, step, found)
        if step == last:
            _die()

    if last == "requested":
        Ledger.request = requested  # type: ignore[method-assign]
    else:
        Ledger.done = stepped  # type: ignore[method-assign]
    _, keys = KeyStore.local()
    refs = frozenset(one for ref in keys.refs_of([tuple(person.split("|"))]) for one in keys.family(ref))  # type: ignore[list-item]
    erase.erase(refs, "a test", "tester", keys, lambda told: None)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
