"""Search, reveal and dead letters, as a person types them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consumers.cli.read import CONTROLS
from infra.audit import events

Run = Callable[..., Any]
BODY = (
    "MSH|^~\\&|READ|ER|US|HERE|20260301120000||ORU^R01|READ1|P|2.5\r"
    "PID|1||RD7001^^^HOSP^MR||Vantongeren^Ilse||19800101|F\r"
    "PV1|1|I|RWARD^2^1||||1234^House^Gregory^^^^^^HOSP\r"
    "OBR|1||L1|24331-1^Lipid panel^LN\r"
    "OBX|1|TX|NOTE||Quokkasign positive after exercise||||||F\r"
    "OBX|2|NM|2093-3^Cholesterol^LN||240|mg/dL|<200|H|||F\r"
)


@pytest.fixture(scope="module")
def sent(stack: Path, command: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The event's id."""
    folder = tmp_path_factory.mktemp("read")
    (folder / "one.hl7").write_text(BODY, newline="")
    (folder / "broken.hl7").write_text(BODY.replace("19800101", "19801399").replace("READ1", "READ2"), newline="")
    command("produce", "files", str(folder), "--manifest", str(folder / "out.jsonl"))
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["outcome"] for row in rows] == ["dead_lettered", "indexed"]
    return str(rows[1]["event_id"])


def searched(command: Run, *arguments: str) -> dict[str, Any]:
    done = command("search", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_words_and_highlight(sent: str, command: Run) -> None:
    found = searched(command, "quokkasign exercise")
    assert found["total"] == 1
    assert found["hits"][0]["event_id"] == sent
    assert "«Quokkasign»" in found["hits"][0]["highlight"]["value_text"][0]
    assert "sealed" not in found["hits"][0]


def test_filter_and_kind(sent: str, command: Run) -> None:
    query = ("*", "--filter", "unit=RWARD", "--kind", "observation")
    assert searched(command, *query)["total"] == 2
    assert searched(command, *query, "--filter", "value_number=240")["total"] == 1
    assert searched(command, "value_number:>200 unit:RWARD")["total"] == 1


def test_exact_look_up(sent: str, command: Run) -> None:
    assert searched(command, "id:rd-7001", "--kind", "event")["total"] == 1
    assert searched(command, "id:RD700", "--kind", "event")["total"] == 0


def test_rarer_words_rank_higher(sent: str, command: Run) -> None:
    scores = [hit["score"] for hit in searched(command, "positive")["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_a_table_for_people(sent: str, command: Run) -> None:
    done = command("search", "quokkasign")
    assert done.returncode == 0
    assert "1 found" in done.stdout


@pytest.mark.parametrize("arguments", [("",), ("nofield:x",), ("*", "--filter", "unit"), ("*", "--since", "x")])
def test_bad_query(stack: Path, command: Run, arguments: tuple[str, ...]) -> None:
    done = command("search", *arguments)
    assert done.returncode == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_unknown_domain(stack: Path, command: Run) -> None:
    done = command("search", "x", "--domain", "none")
    assert done.returncode == 2
    assert "ehr" in done.stderr


def test_reveal_is_audited_first(sent: str, command: Run, stack: Path) -> None:
    done = command("reveal", sent, "--field", "name", "--purpose", "TREAT", "--json")
    (row,) = json.loads(done.stdout)
    assert "Ilse Vantongeren" in row["values"][0]
    line = list(events(stack / "audit" / "audit.jsonl"))[-1]
    assert line["purposeOfEvent"][0]["coding"][0]["code"] == "TREAT"
    assert "Vantongeren" not in json.dumps(line)
    assert [one["what"]["identifier"]["value"] for one in line["entity"]][1] == row["id"]


def test_reveal_staff(sent: str, command: Run) -> None:
    (row,) = json.loads(command("reveal", sent, "--field", "attending", "--purpose", "TREAT", "--json").stdout)
    assert row["values"] == ["Gregory House (1234)"]


def test_reveal_refuses(sent: str, command: Run, stack: Path) -> None:
    lines = len((stack / "audit" / "audit.jsonl").read_text().splitlines())
    assert command("reveal", sent, "--field", "name", "--purpose", "CURIOSITY").returncode == 2
    assert command("reveal", sent, "--field", "nothing", "--purpose", "TREAT").returncode == 2
    assert command("reveal", "0" * 32, "--field", "name", "--purpose", "TREAT").returncode == 2
    assert len((stack / "audit" / "audit.jsonl").read_text().splitlines()) == lines


def letters(command: Run) -> list[dict[str, Any]]:
    found = json.loads(command("dlq", "list", "--json").stdout)
    return [one for one in found if one["source"] == "hl7v2:READ|ER"]


def letter(command: Run) -> dict[str, Any]:
    (made,) = letters(command)
    return made


def test_dead_letter(sent: str, command: Run) -> None:
    made = letter(command)
    assert (made["reason"], made["where"], made["stage"]) == ("bad_date", "PID-7", "agent")
    assert made["topic"] == "hospital.ehr.v1"
    assert made["partition"].isdigit()
    assert made["offset"].isdigit()
    assert "Vantongeren" not in json.dumps(made)


def test_dead_letter_shown_is_audited(sent: str, command: Run, stack: Path) -> None:
    done = command("dlq", "show", letter(command)["number"], "--purpose", "HOPERAT")
    assert "19801399" in done.stdout
    assert "dead letter" in (stack / "audit" / "audit.jsonl").read_text().splitlines()[-1]
    assert command("dlq", "show", "9-99999", "--purpose", "HOPERAT").returncode == 2


def test_dead_letter_replayed(sent: str, command: Run) -> None:
    """What is not mended comes back, as a letter of its new place; the old one says when it was sent again."""
    number = letter(command)["number"]
    assert json.loads(command("dlq", "replay", number, "--json").stdout) == {"replayed": 1, "left_out": 0}
    deadline = time.monotonic() + 30
    while len(found := letters(command)) < 2 and time.monotonic() < deadline:
        time.sleep(0.3)
    assert [(one["number"] == number, bool(one["replayed_at"]), one["reason"]) for one in found] == [
        (True, True, "bad_date"),
        (False, False, "bad_date"),
    ]
    assert json.loads(command("dlq", "replay", number, "--json").stdout) == {"replayed": 0, "left_out": 1}
    assert command("dlq", "replay").returncode == 2


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert "\x1b[2J".translate(CONTROLS) == "\u241b[2J"
