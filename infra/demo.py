"""`make demo`: the whole path once, through the same commands a person would type, on a home of its own.

Starts the stack and a listener, sends the samples and a simulated hospital over MLLP, searches, reveals one field,
and accounts for every message. Ends with 0 only when the account is closed; stops what it started in any case.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.settings import settings
from infra.visible import Watch

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "samples" / "ehr"
COMMAND = [sys.executable, str(ROOT / "wardstream.py")]
IMAGES = ROOT / "tests" / "samples" / "imaging"
PATIENTS, RATE, SEED = 200, 200, 7
SETTLE_SECONDS = 90
console = Console()


def run(*arguments: str) -> None:
    """A command, shown as it would be typed, its output passed through."""
    console.rule(f"[bold]wardstream {' '.join(arguments)}", align="left")
    subprocess.run([*COMMAND, *arguments], check=True)  # noqa: S603 - our own command


def ask(*arguments: str) -> Any:
    """A command's JSON. Code 1 is an answer too: `send` ends with it when a message was refused."""
    done = subprocess.run([*COMMAND, *arguments, "--json"], stdout=subprocess.PIPE)  # noqa: S603
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


def refused_by(answers: Counter[str]) -> int:
    return answers["AR"] + answers["CR"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def listen(port: int) -> subprocess.Popen[bytes]:
    listener = subprocess.Popen([*COMMAND, "produce", "mllp", "--port", str(port)])  # noqa: S603
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and listener.poll() is None:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return listener
        time.sleep(0.1)
    raise SystemExit("the MLLP listener did not start")


def metric(port: int, name: str) -> float:
    """Sum of one metric of a process over all its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def settle(expected: int, duplicates: int, refused: int) -> tuple[int, Counter[str]]:
    """Wait until every message is indexed or dead-lettered; gives both counts, the second by reason."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        indexed = ask("search", "part:0", "--domain", "ehr", "--size", "1")["total"]
        letters = Counter(letter["reason"] for letter in ask("dlq", "list"))
        if indexed + letters.total() + duplicates + refused >= expected or time.monotonic() > deadline:
            return indexed, letters
        time.sleep(1)


def main() -> int:
    home = settings().home.absolute() / "demo"
    shutil.rmtree(home, ignore_errors=True)
    os.environ["WARDSTREAM_HOME"] = str(home)
    settings.cache_clear()
    started = time.monotonic()
    listener = None
    try:
        run("up", "--detach")
        console.rule("[bold]wardstream produce mllp", align="left")
        port = free_port()
        listener = listen(port)
        with Watch("ehr") as watch:
            samples = ask("send", str(SAMPLES), "--port", str(port))
            console.print(f"samples: {samples['sent']} sent, answers {samples['answers']}")
            flowing = time.monotonic()
            sent = ask(
                "simulate", "--patients", str(PATIENTS), "--rate", str(RATE), "--seed", str(SEED), "--port", str(port)
            )
            seconds = time.monotonic() - flowing
            total = samples["sent"] + sent["sent"]
            answers = Counter(samples["answers"]) + Counter(sent["answers"])
            duplicates = samples["repeats"] + sent["repeats"]
            indexed, letters = settle(total, duplicates, refused_by(answers))
        p50, p99 = watch.quantiles()
        for query in (
            ("chest pain",),
            ("troponin abnormal_flags:H",),
            ("pneumonia", "--filter", "unit=MED"),
        ):
            run("search", *query, "--domain", "ehr", "--size", "5")
        simulated = ("--kind", "event", "--filter", "message_type=ADT", "--filter", "sending_facility=HARBOUR")
        named = ask("search", "*", *simulated, "--size", "1")["hits"][0]["event_id"]
        run("reveal", named, "--field", "name", "--purpose", "TREAT")
        run("produce", "files", str(IMAGES / "ct"), str(IMAGES / "mr"))
        run("search", "modality:CT body_part:CHEST", "--domain", "imaging", "--kind", "instance", "--size", "3")
        image = ask("search", "modality:CT", "--domain", "imaging", "--kind", "image", "--size", "1")["hits"][0]["id"]
        run("image", "show", image, "--window", "soft_tissue", "--out", str(home / "ct.png"))
        return summary(total, answers, indexed, letters, duplicates, sent["sent"] / seconds, (p50, p99), started)
    finally:
        if listener is not None:
            listener.send_signal(signal.SIGTERM)
            listener.wait(timeout=30)
        run("down")


def summary(
    sent: int,
    answers: Counter[str],
    indexed: int,
    letters: Counter[str],
    duplicates: int,
    rate: float,
    seen: tuple[float, float],
    started: float,
) -> int:
    table = Table("figure", "value", title="What became of every message")
    accounted = indexed + letters.total() + duplicates + refused_by(answers)
    table.add_row("sent", str(sent))
    table.add_row("acknowledged (AA, CA)", str(answers["AA"] + answers["CA"]))
    table.add_row("asked for no answer", str(answers["unasked"]))
    table.add_row("indexed", str(indexed))
    for reason, count in sorted(letters.items()):
        table.add_row(f"dead-lettered: {reason}", str(count))
    table.add_row("duplicates", str(duplicates))
    table.add_row("refused (AR, CR)", str(refused_by(answers)))
    table.add_row("events/s", f"{rate:.0f}")
    table.add_row("wire to searchable, p50 / p99", f"{seen[0]:.2f} s / {seen[1]:.2f} s")
    table.add_row("whole demo", f"{time.monotonic() - started:.0f} s")
    console.print(table)
    if accounted != sent:
        console.print(f"[red]the account is not closed: {sent} sent, {accounted} accounted for")
        return 1
    console.print("[green]every message is accounted for")
    return 0


if __name__ == "__main__":
    sys.exit(main())
