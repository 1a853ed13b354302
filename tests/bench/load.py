"""Messages for the bench, made beforehand, so that the sender costs next to nothing while it is measured."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from producers.simulate.hospital import Hospital


@dataclass(frozen=True, slots=True)
class Message:
    """Something the MLLP client can send."""

    body: bytes = field(repr=False)
    patient: str


def hospital(seed: int, patients: int) -> list[Message]:
    """A simulated hospital's messages, each once; some five documents a message."""
    made = {event.body: event.patient for event in Hospital(seed, patients, datetime.now(UTC)).events()}
    return [Message(body, patient) for body, patient in made.items()]


def hospital_of(count: int, seed: int = 100) -> list[Message]:
    """So many of them."""
    made: list[Message] = []
    while len(made) < count:
        made += hospital(seed, 400)
        seed += 1
    return made[:count]


def small(count: int, tag: str, patients: int = 5000) -> Iterator[Message]:
    """Admissions of 200 bytes with two documents each: what a long run takes, without making a long story first."""
    at = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    for n in range(count):
        person, visit = f"B{n % patients}", f"W{n % 17}^{n % 9}^1{'|' * 16}V{n % patients}"
        body = (
            f"MSH|^~\\&|BENCH|{tag}|US|HERE|{at}||ADT^A08|{tag}{n}|P|2.5\r"
            f"PID|1||{person}^^^HOSP^MR||A^B||19700101|F\rPV1|1|I|{visit}\r"
        )
        yield Message(body.encode(), person)


PANEL_DOCUMENTS = 10


def panels(count: int, tag: str, patients: int = 5000) -> Iterator[Message]:
    """Results of eight observations, `PANEL_DOCUMENTS` documents each: so that a worker, and not the edge, is what is
    overloaded."""
    at = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    for n in range(count):
        person = f"B{n % patients}"
        observed = "".join(f"OBX|{one}|NM|{one}-8^Test {one}^LN||{n % 90}|mmol/L|||||F\r" for one in range(1, 9))
        body = (
            f"MSH|^~\\&|BENCH|{tag}|US|HERE|{at}||ORU^R01|{tag}{n}|P|2.5\r"
            f"PID|1||{person}^^^HOSP^MR||A^B||19700101|F\rOBR|1||{tag}{n}|24323-8^Panel^LN\r{observed}"
        )
        yield Message(body.encode(), person)


def files(folder: Path, messages: list[Message]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, message in enumerate(messages):
        (folder / f"{number:06}.hl7").write_bytes(message.body)
