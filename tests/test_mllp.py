"""Bad and good input over a real connection, to the real listener: each gets its answer, none is dropped."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


def exchange(port: int, data: bytes, answers: int = 1, close: bool = False) -> list[bytes]:
    """Send bytes; gives the answers, unframed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
        one.sendall(data)
        if close:
            one.shutdown(socket.SHUT_WR)
        got = b""
        while got.count(b"\x1c\r") < answers:
            piece = one.recv(65536)
            if not piece:
                break
            got += piece
    return [part.lstrip(b"\x0b") for part in got.split(b"\x1c\r") if part]


def message(control_id: str, *segments: str, kind: str = "ADT^A01", charset: str = "") -> str:
    header = f"MSH|^~\\&|APP|FAC|US|HERE|20260301120000||{kind}|{control_id}|P|2.5||||||{charset}"
    return "\r".join((header, *segments)) + "\r"


def framed(text: str | bytes) -> bytes:
    return b"\x0b" + (text if isinstance(text, bytes) else text.encode()) + b"\x1c\r"


def code(answer: bytes) -> str:
    return answer.split(b"\rMSA|")[1][:2].decode()


PID = "PID|1||{0}^^^HOSP^MR||Doe^Jane||19800101|F"
GOOD = (PID.format("T100"), "PV1|1|I|ICU^2^1")


def test_accepts(mllp: int) -> None:
    (answer,) = exchange(mllp, framed(message("GOOD1", *GOOD)))
    assert code(answer) == "AA"
    assert b"MSA|AA|GOOD1" in answer
    assert b"|US|HERE|APP|FAC|" in answer.split(b"\r")[0]


def test_fragments_and_coalesced_frames(mllp: int) -> None:
    two = framed(message("FRAG1", *GOOD)) + framed(message("FRAG2", *GOOD))
    with socket.create_connection(("127.0.0.1", mllp), timeout=20) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(two), 37):
            one.sendall(two[at : at + 37])
        got = b""
        while got.count(b"\x1c\r") < 2:
            got += one.recv(65536)
    assert got.index(b"MSA|AA|FRAG1") < got.index(b"MSA|AA|FRAG2")


def test_line_feeds(mllp: int) -> None:
    for number, end in enumerate(("\n", "\r\n")):
        (answer,) = exchange(mllp, framed(message(f"LF{number}", *GOOD).replace("\r", end)))
        assert code(answer) == "AA"


def test_exact_repeat_and_reused_id(mllp: int, command: Run) -> None:
    first = exchange(mllp, framed(message("SAME", PID.format("T201"))))
    again = exchange(mllp, framed(message("SAME", PID.format("T201"))))
    other = exchange(mllp, framed(message("SAME", PID.format("T202"))))
    assert [code(one[0]) for one in (first, again, other)] == ["AA", "AA", "AA"]
    found = wait_for(command, "id:SAME", 2, "--kind", "event")
    assert sorted("control_id_reused" in hit.get("flags", []) for hit in found["hits"]) == [False, True]
    assert len({hit["patient_ref"] for hit in found["hits"]}) == 2


def wait_for(command: Run, query: str, total: int, *more: str) -> Any:
    deadline = time.monotonic() + 30
    while True:
        found = json.loads(command("search", query, "--json", *more).stdout)
        if found["total"] >= total or time.monotonic() > deadline:
            assert found["total"] == total
            return found
        time.sleep(0.3)


BAD = {
    "no_msh": (b"PID|1||T1^^^H^MR\r", "AE"),
    "wrong_separators": (b"MSH||||||APP|FAC|US|HERE|20260301||ADT^A01|W1|P|2.5\r", "AE"),
    "noise": (bytes(range(1, 11)) + bytes(range(14, 27)) + bytes(range(128, 256)), "AE"),
    "wrong_charset": (message("CS1", PID.format("T1"), charset="UTF-8").encode() + b"NTE|1||\xff\xfe\r", "AE"),
    "invalid_date": (message("D1", PID.format("T1")).replace("20260301120000", "20261399").encode(), "AE"),
    "no_pid": (message("P0", "PV1|1|I|ICU").encode(), "AE"),
    "no_message_type": (message("K1", PID.format("T1"), kind="").encode(), "AR"),
    "five_pids": (message("P5", *(PID.format(f"T30{n}") for n in range(5))).encode(), "AE"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_with_a_reason(mllp: int, name: str) -> None:
    body, wanted = BAD[name]
    (answer,) = exchange(mllp, framed(body))
    assert code(answer) == wanted
    assert b"\rERR|" in answer


@pytest.mark.parametrize("name", [name for name, (_, wanted) in BAD.items() if wanted == "AE"])
def test_refused_is_a_dead_letter(mllp: int, command: Run, name: str) -> None:
    body, _ = BAD[name]
    before = json.loads(command("dlq", "list", "--json").stdout)
    fresh = body.replace(b"T1", b"T9") if b"T1" in body else body + b"ZZZ|1\r"  # not an exact repeat
    exchange(mllp, framed(fresh))
    after = json.loads(command("dlq", "list", "--json").stdout)
    (made,) = [one for one in after if one["number"] not in {old["number"] for old in before}]
    assert made["reason"]
    shown = json.loads(command("dlq", "show", made["number"], "--purpose", "HOPERAT", "--json").stdout)
    assert shown["message"].encode() == fresh.decode("utf-8", "backslashreplace").encode()


def test_invalid_birth_date_is_a_dead_letter(mllp: int, command: Run) -> None:
    """Accepted at the edge, which reads no further than the patient; refused by the agent, under a reason."""
    body = message("D2", PID.format("T2").replace("19800101", "19801399"))
    (answer,) = exchange(mllp, framed(body))
    assert code(answer) == "AA"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        letters = json.loads(command("dlq", "list", "--json").stdout)
        if made := [one for one in letters if one["where"] == "PID-7"]:
            break
    assert {(one["reason"], one["stage"]) for one in made} == {("bad_date", "agent")}


def test_truncated_frame(mllp: int) -> None:
    answers = exchange(mllp, b"\x0b" + message("TR1", *GOOD).encode(), close=True)
    assert [code(one) for one in answers] == ["AE"]
    (whole,) = exchange(mllp, framed(message("TR1", *GOOD)))
    assert code(whole) == "AA"


def test_start_byte_inside_data(mllp: int) -> None:
    (answer,) = exchange(mllp, framed(message("VT1", *GOOD, "NTE|1||a\x0bb")))
    assert code(answer) in ("AA", "AE")


def test_too_large(mllp: int) -> None:
    """20 MB: refused with AR, and the connection lives on."""
    huge = message("BIG", *GOOD).encode() + b"NTE|1||" + b"x" * 20_000_000 + b"\r"
    answers = exchange(mllp, framed(huge) + framed(message("AFTER", *GOOD)), answers=2)
    assert [code(one) for one in answers] == ["AR", "AA"]


def test_identifier_repeated_without_authority(mllp: int, command: Run) -> None:
    pid = "PID|1||T401~T402^^^^MR~111223333^^^^SS||Doe^Jane"
    (answer,) = exchange(mllp, framed(message("ID1", pid)))
    assert code(answer) == "AA"
    wait_for(command, "id:T401", 1, "--kind", "event")


def test_many_segments(mllp: int, command: Run) -> None:
    results = (f"OBX|{n}|NM|718-7^Hemoglobin^LN||{n % 20}|g/dL|||||F" for n in range(4997))
    body = message("MANY", PID.format("T500"), "OBR|1||L1|CBC", *results, kind="ORU^R01")
    (answer,) = exchange(mllp, framed(body))
    assert code(answer) == "AA"
    event = wait_for(command, "id:MANY", 1, "--kind", "event")["hits"][0]["event_id"]
    wait_for(command, f"event_id:{event}", 4997, "--kind", "observation", "--size", "1")


def test_dropped_connection_keeps_the_message(mllp: int, command: Run) -> None:
    with socket.create_connection(("127.0.0.1", mllp)) as one:
        one.sendall(framed(message("DROP", *GOOD)))
    wait_for(command, "id:DROP", 1, "--kind", "event")


def test_east_asian_charset(mllp: int, command: Run) -> None:
    text = message("GB1", "PID|1||T600^^^HOSP^MR||王^小明", "OBR|1||L9|CXR", "OBX|1|TX|CXR||胸痛两天||||||F",
                   kind="ORU^R01", charset="GB 18030-2000")  # fmt: skip
    (answer,) = exchange(mllp, framed(text.encode("gb18030")))
    assert code(answer) == "AA"
    wait_for(command, '"胸痛"', 1, "--filter", "code=CXR")  # other files write Chinese notes too
