"""The simulated hospital tells a believable story reproducibly; its client loses and doubles nothing."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from infra.errors import StackDown, UsageError
from producers.simulate.hospital import Hospital, SimulatedMessage
from producers.simulate.mllp_client import Answer, acknowledgement, control_id, send

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
CODECS = {"": "ascii", "UNICODE UTF-8": "utf-8", "8859/1": "latin-1", "GB18030": "gb18030", "GB 18030-2000": "gb18030"}


@pytest.fixture(scope="module")
def story() -> list[SimulatedMessage]:
    return list(Hospital(7, 200, NOW).events())


@pytest.fixture(scope="module")
def years() -> list[SimulatedMessage]:
    """Enough patients that every rare thing happens and the wards fill up."""
    return list(Hospital(11, 900, NOW, NOW - timedelta(days=8)).events())


class Read:
    """A message by position: `field("PID", 3)` of the first PID, numbered as the standard does."""

    def __init__(self, body: bytes) -> None:
        head = body.split(b"\r", 1)[0].split(b"|")
        self.charset = head[17].decode("ascii") if len(head) > 17 else ""
        self.text = body.decode(CODECS[self.charset])
        self.segments = [line.split("|") for line in self.text.split("\r")[:-1]]

    def all(self, name: str) -> list[list[str]]:
        return [one for one in self.segments if one[0] == name]

    def field(self, name: str, position: int) -> str:
        segment = self.all(name)[0]
        index = position - 1 if name == "MSH" else position
        return segment[index] if len(segment) > index else ""


def moment(text: str) -> datetime:
    return datetime.strptime(text if len(text) > 14 else text + "+0000", "%Y%m%d%H%M%S%z")


def distinct(story: list[SimulatedMessage]) -> list[SimulatedMessage]:
    return [one for one in story if one.fate != "repeat"]


# --- the story as a whole


def test_same_arguments_same_bytes(story: list[SimulatedMessage]) -> None:
    assert list(Hospital(7, 200, NOW).events()) == story


def test_one_hospital_tells_its_story_twice() -> None:
    hospital = Hospital(3, 5, NOW)
    assert list(hospital.events()) == list(hospital.events())


def test_another_seed_is_another_story(story: list[SimulatedMessage]) -> None:
    other = {one.body for one in Hospital(8, 200, NOW).events()}
    assert not other & {one.body for one in story}


def test_another_now_brings_the_same_people_under_other_message_ids() -> None:
    first, later = (list(Hospital(5, 20, now).events()) for now in (NOW, NOW + timedelta(hours=5)))
    people = [{re.sub(r"\D.*", "", Read(one.body).field("PID", 3)) for one in run} for run in (first, later)]
    assert len(people[0] & people[1]) >= 15
    assert not {control_id(one.body) for one in first} & {control_id(one.body) for one in later}


def test_two_hundred_patients_make_a_believable_amount(story: list[SimulatedMessage]) -> None:
    assert 2_000 <= len(story) <= 4_000
    types = {one.message_type for one in story}
    assert types == {
        *(f"ADT^A{event}" for event in ("01", "02", "03", "04", "05", "08", "11", "12", "13", "40")),
        *("SIU^S12", "SIU^S13", "SIU^S15", "ORU^R01", "ORM^O01", "MDM^T02"),
    }
    assert {one.fate for one in story} == {"new", "repeat", "late", "cancel", "merge", "correct"}


def test_sending_order_and_no_future(story: list[SimulatedMessage]) -> None:
    assert [one.sent for one in story] == sorted(one.sent for one in story)
    assert all(one.at <= one.sent <= NOW for one in story)
    assert max(one.at for one in story) > NOW - timedelta(hours=1)


def test_fates_mean_what_they_say(story: list[SimulatedMessage]) -> None:
    seen: set[bytes] = set()
    for one in story:
        if one.fate == "repeat":
            assert one.body in seen
        else:
            assert one.body not in seen
        seen.add(one.body)
        if one.fate == "late":
            assert one.sent - one.at >= timedelta(hours=2)
        elif one.fate != "repeat":
            assert one.sent == one.at
        if one.fate == "merge":
            assert one.message_type == "ADT^A40"
        if one.fate == "cancel":
            assert one.message_type in {"ADT^A11", "ADT^A12", "ADT^A13", "SIU^S15"}


def test_message_ids_are_distinct_within_an_application(story: list[SimulatedMessage]) -> None:
    ids = [(Read(one.body).field("MSH", 3), control_id(one.body)) for one in distinct(story)]
    assert len(set(ids)) == len(ids)
    assert all(0 < len(control) <= 20 for _, control in ids)


@pytest.mark.parametrize(
    ("seed", "patients", "now", "start", "facility"),
    [
        (1, 0, NOW, None, "HARBOUR"),
        (1, 5, NOW.replace(tzinfo=None), None, "HARBOUR"),
        (1, 5, NOW, NOW, "HARBOUR"),
        (1, 5, NOW, None, "JADE"),
        (1, 5, NOW, None, "A|B"),
    ],
)
def test_impossible_hospitals(seed: int, patients: int, now: datetime, start: datetime | None, facility: str) -> None:
    with pytest.raises(UsageError):
        Hospital(seed, patients, now, start, facility)


def test_generation_keeps_ahead_of_any_feed() -> None:
    began = time.process_time()
    count = sum(1 for _ in Hospital(2, 200, NOW).events())
    assert count / (time.process_time() - began) > 1_500  # 5,000 and more on a quiet machine


# --- the messages


def test_every_message_reads(years: list[SimulatedMessage]) -> None:
    for one in years:
        assert one.body.endswith(b"\r")
        assert b"\n" not in one.body
        assert b"\x0b" not in one.body
        assert b"\x1c" not in one.body
        read = Read(one.body)
        assert all(re.fullmatch(r"[A-Z][A-Z0-9]{2}", segment[0]) for segment in read.segments)
        assert read.field("MSH", 2) == "^~\\&"
        assert "^".join(read.field("MSH", 9).split("^")[:2]) == one.message_type
        assert read.field("MSH", 12) in {"2.3", "2.5.1", "2.8"}
        assert moment(read.field("MSH", 7)) == one.at
        number, _, _, authority, kind = read.field("PID", 3).split("~")[0].split("^")
        assert re.fullmatch(r"\d{8}", number)
        assert kind == "MR"
        assert authority in {"", read.field("MSH", 4)}
        # whatever is escaped is escaped in full
        assert not re.search(r"\\(?!([FSTRE]|\.br)\\)", re.sub(r"\\([FSTRE]|\.br)\\", "", read.text[9:]))


def test_dialects(story: list[SimulatedMessage]) -> None:
    reads = [Read(one.body) for one in distinct(story)]
    assert {one.charset for one in reads} == set(CODECS)
    versions = Counter(one.field("MSH", 12) for one in reads)
    assert set(versions) == {"2.3", "2.5.1", "2.8"}
    assert versions["2.5.1"] > len(reads) / 2
    assert {len(one.field("MSH", 7)) for one in reads} == {14, 19}
    assert any("^^^SSA^SS" in one.field("PID", 3) for one in reads)
    assert any(re.fullmatch(r"9\d\d-\d\d-\d{4}", one.field("PID", 19)) for one in reads)
    assert any("\\T\\" in one.text for one in reads)


def test_chinese_names_survive_their_charset(story: list[SimulatedMessage]) -> None:
    names: dict[tuple[str, str], set[str]] = {}
    for one in distinct(story):
        read = Read(one.body)
        if read.field("MSH", 4) == "JADE":
            names.setdefault((one.patient, read.field("PID", 3).split("^")[0]), set()).add(read.field("PID", 5))
            assert re.search("[\u4e00-\u9fff]", read.field("PID", 5))
            assert read.text.encode(CODECS[read.charset]) == one.body
    assert len(names) > 10
    assert all(len(spelt) == 1 for spelt in names.values())


def test_gb18030_bodies_hold_separators_inside_characters(years: list[SimulatedMessage]) -> None:
    """The trap is set: a reader that splits before it decodes finds other fields."""
    bodies = [one.body for one in years if Read(one.body).charset.startswith("GB")]
    assert any(body.count(b"|") != body.decode("gb18030").count("|") for body in bodies)
    assert any(body.count(b"\\") != body.decode("gb18030").count("\\") for body in bodies)


def test_telephones_are_of_fiction(years: list[SimulatedMessage]) -> None:
    for one in years[::7]:
        for phone in re.findall(r"[)\-^]555-?\d{4}", Read(one.body).text):
            assert re.search(r"555-?01\d\d$", phone)


def test_a_complete_parser_agrees(story: list[SimulatedMessage]) -> None:
    """Oracle: hl7apy finds the same structure, a few of each type and version."""
    seen: Counter[tuple[str, str]] = Counter()
    for one in story:
        read = Read(one.body)
        key = one.message_type, read.field("MSH", 12)
        if seen[key] >= 2:
            continue
        seen[key] += 1
        grouped = parse_message(read.text, validation_level=VALIDATION_LEVEL.TOLERANT)
        if read.field("MSH", 12) == "2.5.1":  # in 2.3 and 2.8 hl7apy demands conditional fields, OBR-27 among them
            grouped.validate()
        parsed = parse_message(read.text, find_groups=False)
        assert [child.name for child in parsed.children] == [segment[0] for segment in read.segments]
        assert parsed.msh.msh_10.to_er7() == read.field("MSH", 10)
        assert parsed.pid.pid_3.cx_1.to_er7() == read.field("PID", 3).split("^")[0]
    assert len(seen) >= 16


def test_values_agree_with_flags_and_ranges(years: list[SimulatedMessage]) -> None:
    flags: Counter[str] = Counter()
    for one in years:
        for obx in Read(one.body).all("OBX"):
            if obx[2] != "NM":
                continue
            low, high = map(float, re.fullmatch(r"([\d.]+)-([\d.]+)", obx[7]).groups())  # type: ignore[union-attr]
            value, flag = float(obx[5]), obx[8]
            flags[flag] += 1
            assert obx[6].endswith("^^UCUM")
            assert (value < low) == (flag in {"L", "LL"})
            assert (value > high) == (flag in {"H", "HH"})
    assert set(flags) == {"N", "L", "H", "LL", "HH"}
    assert flags["N"] > sum(flags.values()) / 2


def test_blood_gas_obeys_henderson_and_hasselbalch(years: list[SimulatedMessage]) -> None:
    gases = [
        {obx[3].split("^")[0]: float(obx[5]) for obx in Read(one.body).all("OBX")}
        for one in years
        if b"|24336-0^" in one.body and one.message_type == "ORU^R01"
    ]
    assert len(gases) > 20
    for gas in gases:
        assert gas["2744-1"] == pytest.approx(6.1 + math.log10(gas["1960-4"] / (0.0307 * gas["2019-8"])), abs=0.03)


def test_notes_name_their_patient_in_the_text(years: list[SimulatedMessage]) -> None:
    notes = [Read(one.body) for one in years if one.message_type == "MDM^T02"]
    naming = [one for one in notes if one.field("PID", 3).split("^")[0] in one.field("OBX", 5)]
    assert len(notes) * 0.1 < len(naming) < len(notes) * 0.6
    assert any("chest pain" in one.field("OBX", 5) for one in notes)
    assert any("胸痛" in one.field("OBX", 5) for one in notes)


# --- wards and beds


def by_event_time(story: list[SimulatedMessage]) -> list[tuple[SimulatedMessage, Read]]:
    told = [(one, Read(one.body)) for one in distinct(story) if one.message_type.startswith("ADT")]
    return sorted(told, key=lambda pair: (pair[0].at, control_id(pair[0].body)))


def test_a_bed_is_never_held_by_two(years: list[SimulatedMessage]) -> None:
    holder: dict[str, str] = {}
    where: dict[str, str] = {}
    fullest = 0
    for one, read in by_event_time(years):
        if one.message_type == "ADT^A40":
            continue
        stay, place = read.field("PV1", 19), read.field("PV1", 3)
        unit, _, bed, _ = place.split("^")
        event = one.message_type[4:]
        if event in {"A03", "A11"}:
            assert not bed or where.get(stay) == place
            holder.pop(where.pop(stay, ""), None)
        elif bed:
            assert holder.get(place, stay) == stay, (event, unit)
            holder.pop(where.get(stay, ""), None)
            holder[place], where[stay] = stay, place
        elif stay in where:
            raise AssertionError(f"{event}: a stay lost its bed")
        fullest = max(fullest, sum(key.startswith(("CARD", "MED", "SUR", "ICU")) for key in holder))
    assert fullest > 60  # the wards were full: the test had something to find


def test_transfers_come_from_where_the_stay_was(years: list[SimulatedMessage]) -> None:
    where: dict[str, str] = {}
    transfers = 0
    for one, read in by_event_time(years):
        if one.message_type == "ADT^A40":
            continue
        stay = read.field("PV1", 19)
        if one.message_type == "ADT^A02":
            transfers += 1
            assert read.field("PV1", 6) == where[stay] != read.field("PV1", 3)
        where[stay] = read.field("PV1", 3)
    assert transfers > 50


@pytest.mark.parametrize(("cancel", "cancelled"), [("A11", "A01"), ("A12", "A02"), ("A13", "A03")])
def test_cancels_name_an_earlier_event_of_the_same_stay(
    years: list[SimulatedMessage], cancel: str, cancelled: str
) -> None:
    events = {(read.field("PV1", 19), one.message_type[4:], one.at) for one, read in by_event_time(years)
              if one.message_type != "ADT^A40"}  # fmt: skip
    found = [(one, read) for one, read in by_event_time(years) if one.message_type == f"ADT^{cancel}"]
    assert found
    for one, read in found:
        occurred = moment(read.field("EVN", 6))
        assert occurred < one.at
        assert (read.field("PV1", 19), cancelled, occurred) in events
        assert one.fate == "cancel"


def test_cancelled_appointments_were_booked(years: list[SimulatedMessage]) -> None:
    booked = {Read(one.body).field("SCH", 1) for one in years if one.message_type == "SIU^S12"}
    gone = {Read(one.body).field("SCH", 1) for one in years if one.message_type in {"SIU^S13", "SIU^S15"}}
    assert gone
    assert gone <= booked


def test_merges_name_a_number_used_before_and_none_uses_it_after(years: list[SimulatedMessage]) -> None:
    first_used: dict[str, datetime] = {}
    last_used: dict[str, datetime] = {}
    for one in distinct(years):
        number = Read(one.body).field("PID", 3).split("^")[0]
        first_used.setdefault(number, one.at)
        last_used[number] = max(one.at, last_used.get(number, one.at))
    merges = [(one, Read(one.body)) for one in distinct(years) if one.message_type == "ADT^A40"]
    assert merges
    for one, read in merges:
        prior, survivor = read.field("MRG", 1).split("^")[0], read.field("PID", 3).split("^")[0]
        assert prior != survivor
        assert last_used[prior] <= one.at
        assert first_used[survivor] < one.at


def test_corrections_name_what_they_correct(years: list[SimulatedMessage]) -> None:
    results: dict[str, datetime] = {}
    corrected = 0
    for one in sorted(distinct(years), key=lambda one: one.at):
        if one.message_type != "ORU^R01":
            continue
        read = Read(one.body)
        filler = read.field("OBR", 3)
        if one.fate == "correct":
            corrected += 1
            assert read.field("OBR", 25) == "C"
            assert results[filler] < one.at
        else:
            assert filler not in results
        results[filler] = one.at
    assert corrected


# --- the client


@dataclass(frozen=True)
class Plain:
    body: bytes
    patient: str


def plain(count: int, patients: int = 7) -> list[Plain]:
    return [
        Plain(f"MSH|^~\\&|A|B|C|D|20250301||ADT^A08|M{index}|T|2.5.1\rPID|1||{index % patients}\r".encode(),
              f"p{index % patients}")
        for index in range(count)
    ]  # fmt: skip


def reply(body: bytes, code: str) -> bytes:
    return (
        b"\x0bMSH|^~\\&|C|D|A|B|20250301||ACK|R1|T|2.5.1\rMSA|" + code.encode() + b"|" + control_id(body) + b"\r\x1c\r"
    )


Behaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """An MLLP server that does as `behave` says with each message and remembers what came on which connection."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.received: list[tuple[int, bytes]] = []
        self.port = 0
        self._connections = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Listener]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        connection = self._connections
        try:
            while True:
                frame = await reader.readuntil(b"\x1c\r")
                assert frame.startswith(b"\x0bMSH")
                self.received.append((connection, frame[1:-2]))
                await self.behave(frame[1:-2], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def accept(body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(reply(body, "AA"))


async def test_everything_is_acknowledged_in_order_of_each_patient() -> None:
    messages = plain(300)
    answers: list[tuple[Plain, Answer | None]] = []
    async with Listener(accept).open() as listener:
        sent = await send(
            messages, "127.0.0.1", listener.port, connections=3, on_answer=lambda *pair: answers.append(pair)
        )
    assert (sent.sent, sent.acknowledged, sent.resent, sent.lost, sent.unmatched) == (300, 300, 0, 0, 0)
    assert len(sent.latencies) == 300
    assert sent.seconds > 0
    assert sorted(one.body for one, _ in answers) == sorted(one.body for one in messages)
    assert {answer.code for _, answer in answers if answer} == {"AA"}
    for patient in {one.patient for one in messages}:
        own = [one.body for one in messages if one.patient == patient]
        arrived = [(connection, body) for connection, body in listener.received if body in own]
        assert [body for _, body in arrived] == own
        assert len({connection for connection, _ in arrived}) == 1


async def test_answers_in_pieces_and_doubled() -> None:
    """An answer cut into bytes, and a second copy of it in one piece with nothing after: the copy is nobody's."""

    async def behave(body: bytes, writer: asyncio.StreamWriter) -> None:
        answer = reply(body, "AA")
        for start in range(0, len(answer) - 1, 9):
            writer.write(answer[start : min(start + 9, len(answer) - 1)])
            await asyncio.sleep(0)
        writer.write(answer[-1:] + answer)

    async with Listener(behave).open() as listener:
        sent = await send(plain(40), "127.0.0.1", listener.port, connections=2)
    assert (sent.acknowledged, sent.resent) == (40, 0)
    assert sent.unmatched == 38  # all copies but the last of each connection, which nobody reads


async def test_codes_are_counted() -> None:
    async def behave(body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(body, {0: "AA", 1: "AE", 2: "AR"}[int(control_id(body)[1:]) % 3]))

    async with Listener(behave).open() as listener:
        sent = await send(plain(30, 30), "127.0.0.1", listener.port, connections=5, attempts=3, backoff=0.001)
    assert (sent.sent, sent.acknowledged, sent.errors, sent.refused, sent.lost) == (30, 10, 10, 10, 0)
    assert sent.resent == 20
    assert len(listener.received) == 50


async def test_refused_then_accepted() -> None:
    refusals: Counter[bytes] = Counter()

    async def behave(body: bytes, writer: asyncio.StreamWriter) -> None:
        refusals[body] += 1
        writer.write(reply(body, "AR" if refusals[body] < 3 else "AA"))

    async with Listener(behave).open() as listener:
        sent = await send(plain(6), "127.0.0.1", listener.port, connections=2, backoff=0.001)
    assert (sent.acknowledged, sent.refused, sent.resent) == (6, 0, 12)
    assert [body for connection, body in listener.received if connection == 1][0:3].count(listener.received[0][1]) >= 1


async def test_a_lost_answer_brings_the_same_bytes_again_before_the_next() -> None:
    dropped: set[bytes] = set()

    async def behave(body: bytes, writer: asyncio.StreamWriter) -> None:
        if int(control_id(body)[1:]) % 4 == 0 and body not in dropped:
            dropped.add(body)
            raise ConnectionResetError
        await accept(body, writer)

    messages = plain(20, 1)
    async with Listener(behave).open() as listener:
        sent = await send(messages, "127.0.0.1", listener.port, connections=1, backoff=0.001)
    assert (sent.sent, sent.acknowledged, sent.resent, sent.lost) == (20, 20, 5, 0)
    bodies = [body for _, body in listener.received]
    assert bodies == [one.body for one in messages for _ in range(2 if one.body in dropped else 1)]


async def test_a_late_answer_never_meets_the_next_message() -> None:
    slow: set[bytes] = set()

    async def behave(body: bytes, writer: asyncio.StreamWriter) -> None:
        if control_id(body) == b"M1" and body not in slow:
            slow.add(body)
            await asyncio.sleep(0.2)
            writer.write(reply(body, "AE"))
        else:
            await accept(body, writer)

    async with Listener(behave).open() as listener:
        sent = await send(plain(4, 1), "127.0.0.1", listener.port, connections=1, timeout=0.1, backoff=0.001)
    assert (sent.acknowledged, sent.errors, sent.resent) == (4, 0, 1)


async def test_silence_ends_as_lost() -> None:
    async def behave(body: bytes, writer: asyncio.StreamWriter) -> None:
        if control_id(body) != b"M0":
            await accept(body, writer)

    ends: list[Answer | None] = []
    async with Listener(behave).open() as listener:
        sent = await send(
            plain(3, 1), "127.0.0.1", listener.port, connections=1, attempts=2, timeout=0.05, backoff=0.001,
            on_answer=lambda _, answer: ends.append(answer),
        )  # fmt: skip
    assert (sent.sent, sent.acknowledged, sent.lost, sent.resent) == (3, 2, 1, 1)
    assert ends[0] is None


async def test_an_answer_that_names_nothing_is_ours() -> None:
    async def behave(body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x0bMSH|^~\\&|||||||ACK|1|T|2.5.1\rMSA|AE|\r\x1c\r")

    async with Listener(behave).open() as listener:
        sent = await send(plain(2), "127.0.0.1", listener.port)
    assert (sent.errors, sent.unmatched) == (2, 0)


async def test_rate_is_a_schedule() -> None:
    async with Listener(accept).open() as listener:
        sent = await send(plain(100), "127.0.0.1", listener.port, rate=200)
    assert 0.49 < sent.seconds < 1.5


async def test_nobody_listens() -> None:
    async with Listener(accept).open() as listener:
        pass
    with pytest.raises(StackDown):
        await send(plain(2000, 1), "127.0.0.1", listener.port, attempts=2, backoff=0.001)


async def test_nonsense_arguments() -> None:
    with pytest.raises(UsageError):
        await send(plain(1), "127.0.0.1", 1, connections=0)


async def test_the_hospital_goes_through_the_client(story: list[SimulatedMessage]) -> None:
    async with Listener(accept).open() as listener:
        sent = await send(story, "127.0.0.1", listener.port, connections=8)
    assert sent.acknowledged == sent.sent == len(story)
    assert Counter(body for _, body in listener.received) == Counter(one.body for one in story)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"MSH|^~\\&|\rMSA|AA|7\r", ("AA", b"7")),
        (b"MSH#^~\\&#\nMSA#AE#7#text\n", ("AE", b"7")),
        (b"MSH|^~\\&|\rMSA|AR\r", ("AR", b"")),
        (b"MSH|^~\\&|\r", ("", b"")),
        (b"", ("", b"")),
    ],
)
def test_acknowledgements_read(body: bytes, found: tuple[str, bytes]) -> None:
    assert acknowledgement(body) == found
