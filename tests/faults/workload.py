"""A careful sender that knows every message and the answer it got; one patient's messages go one after the other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from producers.simulate.mllp_client import Answer, send
from schemas.envelope import event_id

APPLICATION, FACILITY, NAME = "FAULTS", "HARNESS", "Faultington"
SOURCE = f"hl7v2:{APPLICATION}|{FACILITY}"
PATIENTS = 150
FOREVER = 1_000_000


@dataclass(slots=True)
class Message:
    """One message, and what is known of it. `kind`: move, result, poison (the agent's letter), refused (the edge's)."""

    control: str
    patient: str
    number: int  # in the patient's order of sending
    kind: str
    body: bytes = field(repr=False)
    event_id: str
    answer: str = ""  # the final one: AA, AE; empty while there is none


class Workload:
    """`rate` messages a second to all listeners together, until `stop` or `limit`; 0 is as fast as answers come.

    `poison` is the share of poisoned messages; `tag` begins their control ids.
    """

    def __init__(
        self, key: bytes, seed: int, ports: list[int], rate: float, *, tag: str = "F", limit: int | None = None
    ) -> None:
        self._key, self._ports, self._rate, self._tag, self._limit = key, ports, rate, tag, limit
        self._random = random.Random(seed)
        self._ended = False
        self._numbers = dict.fromkeys(range(PATIENTS), 0)
        self._began = datetime.now(UTC) - timedelta(minutes=30)
        self.poison = 0.01
        self.messages: list[Message] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for lane, port in enumerate(self._ports):
                made = self._made(lane)
                group.create_task(
                    send(made, "127.0.0.1", port, self._rate / len(self._ports), 8, self._note,
                         attempts=FOREVER, timeout=6.0, longest_backoff=1.0)
                )  # fmt: skip

    def stop(self) -> None:
        self._ended = True

    @property
    def answered(self) -> list[Message]:
        return [one for one in self.messages if one.answer]

    def _note(self, message: Message, answer: Answer | None) -> None:
        assert answer is not None
        message.answer = answer.code

    def _made(self, lane: int) -> Iterator[Message]:
        """Endless; one in thirty is an exact repeat of the patient's last one."""
        last: dict[int, Message] = {}
        lanes = len(self._ports)
        while not self._ended and len(self.messages) != self._limit:
            patient = self._random.randrange(PATIENTS // lanes) * lanes + lane
            if patient in last and self._random.random() < 1 / 30:
                yield last[patient]
                continue
            made = last[patient] = self._message(patient)
            self.messages.append(made)
            yield made

    def _message(self, patient: int) -> Message:
        self._numbers[patient] += 1
        number, choice = self._numbers[patient], self._random.random()
        control = f"{self._tag}{patient}-{number}"
        # Mostly in order; some late, some ahead of their time.
        ahead = 0.0 if choice < 0.9 else self._random.choice((-1500.0, 3000.0))
        at = f"{self._began + timedelta(seconds=len(self.messages) / 50 + ahead):%Y%m%d%H%M%S.%f}"[:18] + "+0000"
        kind = "poison" if self._random.random() < self.poison else self._random.choice(("move",) * 6 + ("result",) * 4)
        if kind != "poison" and self._random.random() < 0.01:
            kind = "refused"
        body = {"move": _move, "result": _result, "poison": _poison, "refused": _refused}[kind](
            control, at, patient, number
        ).encode()
        made = event_id(self._key, SOURCE, (APPLICATION, FACILITY, control), body)
        return Message(control, str(patient), number, kind, body, made)


def _header(control: str, at: str, kind: str) -> str:
    return f"MSH|^~\\&|{APPLICATION}|{FACILITY}|US|HERE|{at}||{kind}|{control}|P|2.5\r"


def _person(patient: int, born: str = "19800101") -> str:
    return f"PID|1||FP{patient}^^^HARNESS^MR||{NAME}{patient}^Ann||{born}|F\r"


def _move(control: str, at: str, patient: int, number: int) -> str:
    visit = f"PV1|1|I|WARD{patient % 7}^{number}^1" + "|" * 16 + f"FV{patient}\r"
    return _header(control, at, "ADT^A08") + f"EVN|A08|{at}\r" + _person(patient) + visit


def _result(control: str, at: str, patient: int, number: int) -> str:
    """A critical one, so that it makes a signal."""
    observed = f"OBR|1||L{control}|2823-3^Potassium^LN\rOBX|1|NM|2823-3^Potassium^LN||{number}|mmol/L|||HH||F\r"
    return _header(control, at, "ORU^R01") + _person(patient) + observed


def _poison(control: str, at: str, patient: int, number: int) -> str:
    return _header(control, at, "ADT^A08") + _person(patient, born="19801399")


def _refused(control: str, at: str, patient: int, number: int) -> str:
    return _header(control, at, "ADT^A08") + f"PV1|1|I|WARD^{number}\r"
