"""A careful sender that knows every message and the answer it got; one patient's messages go one after the other.

The same seed makes the same messages, whatever the network does meanwhile: each lane draws from a generator of its own,
a fixed number of times a message, and counts its own time. Only which of them are poisoned hangs on when a step asks
for it, and event ids on the keys of the home.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from producers.simulate.mllp_client import Answer, send
from schemas.envelope import event_id

APPLICATION, FACILITY, NAME = "FAULTS", "HARNESS", "Faultington"
SOURCE = f"hl7v2:{APPLICATION}|{FACILITY}"
PERSON, STAY = "FAULTPERSON", "FAULTSTAY"  # begin the numbers of persons and visits
IDENTIFYING = tuple(word.encode() for word in (NAME, PERSON, STAY))  # may stand nowhere in clear
PATIENTS = 150  # known at the beginning
NEW = 50  # every so many messages of a lane one is of a patient never heard of, who has a new doctor
REPEATED = 1 / 30
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
AHEAD = datetime(2099, 1, 1, tzinfo=UTC)  # whose clock says so is wrong
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
    at: str  # event time, RFC 3339; empty for one ahead of its time, which counts as of its arrival
    answer: str = ""  # the final one: AA, AE; empty while there is none


class Workload:
    """`rate` messages a second to all listeners together, until `stop` or `limit`; 0 is as fast as answers come.

    `poison` is the share of poisoned messages; `tag` begins their control ids.
    """

    def __init__(
        self, key: bytes, seed: int, ports: list[int], rate: float, *, tag: str = "F", limit: int | None = None
    ) -> None:
        self._key, self._seed, self._ports, self._rate, self._tag = key, seed, ports, rate, tag
        self._each = None if limit is None else limit // len(ports)
        self._ended = False
        self._numbers: Counter[int] = Counter()
        self.poison = 0.01
        self.messages: list[Message] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for lane, port in enumerate(self._ports):
                made = self.made(lane)
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

    def made(self, lane: int) -> Iterator[Message]:
        """Endless but for `limit`; one in thirty is an exact repeat of the patient's last one."""
        draw, lanes = random.Random(f"{self._seed}-{lane}"), len(self._ports)
        known = list(range(lane, PATIENTS, lanes))
        last: dict[int, Message] = {}
        count = 0
        while not self._ended and count != self._each:
            # All at once: a message that is not made must not change those after it.
            which, repeated, lateness, poisoned, kind = (draw.random() for _ in range(5))
            if count % NEW == NEW // 2:
                known.append(known[-1] + lanes)
                patient = known[-1]
            else:
                patient = known[int(which * len(known))]
            if patient in last and repeated < REPEATED:
                yield last[patient]
                continue
            # Mostly in order; some late, some early, some ahead of their arrival.
            shift = -1500.0 if lateness < 0.05 else 3000.0 if lateness < 0.1 else 0.0
            at = BEGAN + timedelta(seconds=count * lanes / 50 + shift, milliseconds=lane)
            made = last[patient] = self._message(patient, at, lateness > 0.98, poisoned < self.poison, kind)
            count += 1
            self.messages.append(made)
            yield made

    def _message(self, patient: int, when: datetime, ahead: bool, poisoned: bool, draw: float) -> Message:
        self._numbers[patient] += 1
        number = self._numbers[patient]
        kind = "poison" if poisoned else "refused" if draw < 0.01 else "move" if draw < 0.6 else "result"
        make = {"move": _move, "result": _result, "poison": _poison, "refused": _refused}[kind]
        ahead = ahead and kind == "move"
        stamp = f"{AHEAD if ahead else when:%Y%m%d%H%M%S.%f}"[:18]
        at = "" if ahead else f"{when:%Y-%m-%dT%H:%M:%S}.{stamp[-3:]}Z"
        control = f"{self._tag}{patient}-{number}"
        body = make(control, f"{stamp}+0000", patient, number).encode()
        made = event_id(self._key, SOURCE, (APPLICATION, FACILITY, control), body)
        return Message(control, str(patient), number, kind, body, made, at)


def _header(control: str, at: str, kind: str) -> str:
    return f"MSH|^~\\&|{APPLICATION}|{FACILITY}|US|HERE|{at}||{kind}|{control}|P|2.5\r"


def _person(patient: int, number: int, born: str = "19800101") -> str:
    """PID-15 says the number of the message, so that the patient's entity tells which came last."""
    return f"PID|1||{PERSON}{patient}^^^HARNESS^MR||{NAME}{patient}^Ann||{born}|F|||||||L{number}\r"


def _move(control: str, at: str, patient: int, number: int) -> str:
    """PV1-7: each patient has a doctor of his own, so that workers write to the key store as well."""
    doctor = f"D{patient}^{NAME}^Doc"
    visit = f"PV1|1|I|WARD{patient % 7}^{number}^1||||{doctor}" + "|" * 12 + f"{STAY}{patient}\r"
    return _header(control, at, "ADT^A08") + f"EVN|A08|{at}\r" + _person(patient, number) + visit


def _result(control: str, at: str, patient: int, number: int) -> str:
    """A critical one, so that it makes a signal."""
    observed = f"OBR|1||L{control}|2823-3^Potassium^LN\rOBX|1|NM|2823-3^Potassium^LN||{number}|mmol/L||HH|||F\r"
    return _header(control, at, "ORU^R01") + _person(patient, number) + observed


def _poison(control: str, at: str, patient: int, number: int) -> str:
    return _header(control, at, "ADT^A08") + _person(patient, number, born="19801399")


def _refused(control: str, at: str, patient: int, number: int) -> str:
    return _header(control, at, "ADT^A08") + f"PV1|1|I|WARD^{number}\r"
