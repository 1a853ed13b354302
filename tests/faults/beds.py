"""Twenty times kill -9 while beds, staff and patients move, and then the board beside one that a clean replay gives.

    python tests/faults/beds.py [--kills N] [--seed N]

A hospital's three days go in piece by piece, operations events and ADT; the worker is killed at a random moment of
each piece. Exit code 0 only when the live index holds what a replay from the sealed topic makes, entity by entity with
every seal opened, and the board made of both is the same, conflicts and all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from infra.kafka import lag
from infra.keystore import KeyStore
from schemas.registry import DOMAINS
from streams.allocation import board as boards
from tests.test_replay import live_index, opened

ROOT = Path(__file__).resolve().parents[2]
WARDSTREAM = [sys.executable, str(ROOT / "wardstream.py")]
PATIENCE_SECONDS = 120.0
LINES, MESSAGES = rb"(?<=\n)", rb"(?<=\r)(?=MSH\|)"
console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)


def run(*arguments: str) -> str:
    return subprocess.run([*WARDSTREAM, *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def worker() -> psutil.Process | None:
    home = os.environ["WARDSTREAM_HOME"]
    for one in psutil.process_iter(["cmdline"]):
        if (one.info["cmdline"] or [""])[-1] == "worker" and one.environ().get("WARDSTREAM_HOME") == home:
            return one
    return None


def kill(chance: random.Random) -> None:
    """At a random moment of the next seconds; what is younger than the supervisor's patience counts as a bad start."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (one := worker()) is None or time.time() - one.create_time() < 4:
        if time.monotonic() > deadline:
            raise SystemExit("no worker comes back")
        time.sleep(0.1)
    time.sleep(chance.random() * 2)
    one.send_signal(signal.SIGKILL)


def settled() -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    for name in ("ehr", "allocation", "ehr", "allocation"):
        while sum(one.events for one in lag(DOMAINS[name].raw.name).values()):
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} is not taken to its end")
            time.sleep(0.3)


def pieces(path: Path, between: bytes, count: int, folder: Path) -> list[Path]:
    """A file in so many, in order, cut where the expression matches nothing wide."""
    whole = [one for one in re.split(between, path.read_bytes()) if one]
    size = -(-len(whole) // count)
    made = []
    for number in range(count):
        one = folder / f"{path.stem}-{number:02}{path.suffix}"
        one.write_bytes(b"".join(whole[number * size : (number + 1) * size]))
        made.append(one)
    return made


def board(entities: dict[str, Any], at: datetime) -> dict[str, boards.Board]:
    _, keys = KeyStore.local()
    found = {name: one for name, one in entities.items() if one.get("part") == -1}
    return {
        site: boards.board(site, found, at, keys.merged()) for site in sorted({one["site"] for one in found.values()})
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    chance, folder = random.Random(given.seed), Path(tempfile.mkdtemp(prefix="wardstream-beds-"))
    os.environ["WARDSTREAM_HOME"] = str(folder / "home")
    console.print(f"seed {given.seed}, {given.kills} kills", highlight=False)
    try:
        run("up", "--detach")
        told, moved = folder / "told.ndjson", folder / "moved.hl7"
        run("simulate", "--hospital", "small", "--days", "3", "--seed", str(given.seed), "--operations", str(told),
            "--out", str(moved))  # fmt: skip
        parts = zip(pieces(told, LINES, given.kills, folder), pieces(moved, MESSAGES, given.kills, folder), strict=True)
        for number, (operations, adt) in enumerate(parts, 1):
            sending = [
                subprocess.Popen([*WARDSTREAM, "produce", *what], cwd=ROOT, stdout=subprocess.DEVNULL)
                for what in (("operations", str(operations)), ("files", str(adt)))
            ]
            kill(chance)
            for one in sending:
                one.wait()
            console.print(f"{number}/{given.kills} killed", highlight=False)
        settled()
        live = opened(live_index("allocation"), "allocation")
        run("replay", "--domain", "allocation", "--into", "allocation-clean")
        clean = opened("allocation-clean", "allocation")
        at = datetime.now(UTC)
        apart = [name for name in live.keys() | clean.keys() if live.get(name) != clean.get(name)]
        there, again = board(live, at), board(clean, at)
        said = {
            "kills": given.kills,
            "seed": given.seed,
            "documents": len(live),
            "documents_apart": len(apart),
            "boards_equal": there == again,
            "sites": {
                name: [len(one.site.beds), len(one.stays), len(one.site.requests)] for name, one in there.items()
            },
        }
        print(json.dumps(said, indent=2))
        return 0 if not apart and there == again and any(one.stays for one in there.values()) else 1
    finally:
        run("down")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
