"""Notes understood: each sentence's assertion, sections, abbreviations, what goes to which field; and hostile texts."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import Envelope
from schemas.peers import Peer, Peers
from schemas.record import Record
from schemas.wire.hl7v2 import Message
from streams import ehr
from streams.ehr import hl7v2
from streams.ehr.notes import ASSERTIONS, CUT, LIMIT, assertion, expand, understand
from streams.ehr.notes.sections import sections
from streams.ehr.notes.triggers import phrases
from streams.stages import STAGES

LABELLED = Path(__file__).resolve().parent / "samples" / "notes" / "assertions.tsv"
SENTENCES = [line.split("\t") for line in LABELLED.read_text().splitlines()]
NOW = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)
PID = "PID|1||7001^^^HOSP^MR||Vantongeren^Ilse||19800102|F"


def record(*segments: str, charset: str = "") -> Record:
    header = f"MSH|^~\\&|APP|FAC|US|HERE|20260301120000||ORU^R01|C1|P|2.5||||||{charset}"
    raw = "\r".join((header, PID, *segments, "")).encode({"": "ascii", "GB18030": "gb18030"}.get(charset, "utf-8"))
    return hl7v2.read(Message.read(raw), Peer.model_validate({}), NOW)


def document(*segments: str, charset: str = "", kind: str = "observation") -> dict[str, Any]:
    """The clear part of the last document of a kind."""
    return [one.clear for one in ehr.document(record(*segments, charset=charset)) if one.kind == kind][-1]


# ---------------------------------------------------------------------------------------------------------- assertions


@pytest.mark.parametrize(("said", "concept", "sentence"), SENTENCES, ids=[str(one) for one in range(len(SENTENCES))])
def test_assertion(said: str, concept: str, sentence: str) -> None:
    assert assertion(sentence, concept) == said


def test_all_four_are_among_the_sentences() -> None:
    assert {said for said, _, _ in SENTENCES} == set(ASSERTIONS)


def test_a_concept_that_is_not_there_is_an_error_that_shows_nothing() -> None:
    with pytest.raises(ValueError, match="no word of the concept") as caught:
        assertion("No chest pain.", "fracture")
    assert "fracture" not in str(caught.value)


def test_one_affirmed_mention_is_enough() -> None:
    assert assertion("No edema on the left. There is pitting edema on the right.", "edema") == "affirmed"


def test_a_trigger_within_a_concept_turns_nothing() -> None:
    assert assertion("There was absence of bowel sounds.", "absence of bowel sounds") == "affirmed"


def test_the_family_denied_is_denied() -> None:
    made = understand("No family history of diabetes.")
    assert (made.family, made.negated) == ((), ("family history of diabetes",))


# ------------------------------------------------------------------------------------------------------- text to fields


def test_each_word_goes_to_one_field() -> None:
    made = understand("He denies chest pain, but has a cough. Possible pneumonia. Mother had a stroke.")
    assert made.affirmed == ("He", "but has a cough")
    assert (made.negated, made.uncertain, made.family) == (("chest pain",), ("pneumonia",), ("Mother had a stroke",))


def test_a_phrase_never_joins_what_a_denial_parted() -> None:
    assert understand("chest without pain").affirmed == ("chest",)


def test_units_and_doses_stay_as_sent() -> None:
    text = "Started metformin 500 mg PO b.i.d.; glucose 11.2 mmol/L, WBC 7.3 10*3/uL, 2 x 5 mL"
    assert understand(text).affirmed == (text,)


WORDS = (
    "no denies possible mother fever, cough. but and or ? negative : is not ruled out for patient if\n 无 否认"
    " 发热 ， 父亲 。 (-) without chest pain likely in her family history: plan: versus unlikely a"
)


@given(st.lists(st.sampled_from(WORDS.split(" ")), max_size=40).map(" ".join))
def test_pieces_are_of_the_text_in_its_order(text: str) -> None:
    made = understand(text)
    for name in ASSERTIONS:
        at = 0
        for piece in getattr(made, name):
            at = text.index(piece, at) + len(piece)


@given(st.text(max_size=300))
def test_any_text_is_understood_somehow(text: str) -> None:
    understand(text)


# ------------------------------------------------------------------------------------------------------------- sections

NOTE = """History of Present Illness: Chest pain since yesterday.
PAST MEDICAL HISTORY
Hypertension, diabetes
Family History: Colon cancer.
Mother: breast cancer
Vitals on arrival: BP 120/80
Differential Diagnosis: pericarditis, myocarditis
Pertinent negatives: fever, cough
Plan: Troponin.
"""


def test_sections() -> None:
    made = understand(NOTE)
    assert made.sections == (
        *("history_of_present_illness", "past_medical_history", "family_history", "differential"),
        *("pertinent_negatives", "plan"),
    )
    said = {name: " ".join(getattr(made, name)) for name in ASSERTIONS}
    for name, words in {
        "family": ("Colon cancer", "breast cancer"),
        "uncertain": ("pericarditis", "myocarditis"),
        "negated": ("fever", "cough"),
        "affirmed": ("Chest pain", "diabetes", "BP 120/80", "Troponin"),
    }.items():
        for word in words:
            assert [one for one in ASSERTIONS if word in said[one]] == [name], word


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Anamnese: Husten.\nFamilienanamnese: Vater Diabetes.\nBeurteilung: Pneumonie.", "family_history impression"),
        (
            "主诉：胸痛3天。\n既往史：高血压。\n家族史：父亲糖尿病。",
            "chief_complaint past_medical_history family_history",
        ),
        ("IMPRESSION: No fracture. PLAN: Rest.", "impression plan"),
        ("Time: 10:30 and a ratio of 1:2", ""),
    ],
)
def test_headings_of_three_languages(text: str, names: str) -> None:
    assert set(names.split()) <= {one.name for one in sections(text)}


def test_a_family_section_of_german_and_chinese() -> None:
    assert understand("Familienanamnese: Diabetes.").family == ("Diabetes",)
    assert understand("家族史：糖尿病。").family == ("糖尿病",)


# -------------------------------------------------------------------------------------------------------- abbreviations


@pytest.mark.parametrize(
    ("text", "long"),
    [
        ("HTN and DM2", "hypertension and type 2 diabetes mellitus"),
        ("c/o SOB", "complains of shortness of breath"),
        ("prior MI", "prior myocardial infarction"),
        ("DM", "diabetes mellitus"),
        ("Robitussin DM", "Robitussin DM"),
        ("CVA tenderness", "CVA tenderness"),
        ("s/p CABG", "status post coronary artery bypass graft"),
        ("10 mg mi sob", "10 mg mi sob"),  # small letters: words of a text, or of another language
        ("RA, MS, PE, LOC", "RA, MS, PE, LOC"),  # several meanings
    ],
)
def test_abbreviations(text: str, long: str) -> None:
    assert expand(text) == long


def test_a_query_may_write_them_small() -> None:
    assert expand("mi", asked=True) == "myocardial infarction"


def test_a_pattern_stands_for_all_its_phrases() -> None:
    assert list(phrases("(is|) kein(e|) x")) == ["is keine x", "is kein x", "keine x", "kein x"]


# ------------------------------------------------------------------------------------------------------------ documents


def test_a_report() -> None:
    made = document("OBX|1|TX|N^Note^L||FINDINGS: No effusion.", "OBX|2|TX|N^Note^L||Impression: Pneumonia.")
    assert (made["negated"], made["sections"]) == (["effusion"], ["findings", "impression"])
    assert "Pneumonia" in made["affirmed"][-1]


@pytest.mark.parametrize(
    ("value", "name"),
    [("Negative", "negated"), ("Not detected.", "negated"), ("POSITIVE", "affirmed"), ("阴性", "negated")],
)
def test_an_answer_is_about_what_was_asked(value: str, name: str) -> None:
    made = document(f"OBX|1|ST|X^HIV antibody^L||{value}", charset="UNICODE UTF-8")
    assert {one: made[one] for one in ASSERTIONS if one in made} == {name: ["human immunodeficiency virus antibody"]}


def test_a_number_says_nothing() -> None:
    made = document("OBX|1|NM|2093-3^Cholesterol^LN||240|mg/dL")
    assert not made.keys() & {*ASSERTIONS, "sections"}


@pytest.mark.parametrize(
    ("confirmation", "status", "name"),
    [
        ("", "", "affirmed"),
        ("confirmed", "active", "affirmed"),
        ("refuted", "", "negated"),
        ("", "ruled out", "negated"),
        ("provisional", "", "uncertain"),
        ("differential", "", "uncertain"),
        ("entered-in-error", "", ""),
    ],
)
def test_a_coded_diagnosis_is_what_its_status_says(confirmation: str, status: str, name: str) -> None:
    made = document(f"PRB|AD|20260301|44054006^DM2^SCT||||||||||{confirmation}|{status}", kind="diagnosis")
    found = {one: made[one] for one in ASSERTIONS if one in made}
    assert found == ({name: ["type 2 diabetes mellitus"]} if name else {})
    assert (made["code"], made["code_system"]) == ("44054006", "SCT")


@pytest.mark.parametrize(
    ("action", "status", "name"),
    [("A", "C", "affirmed"), ("A", "I", "affirmed"), ("A", "U", "uncertain"), ("A", "D", "uncertain")]
    + [("A", "S", "uncertain"), ("A", "E", ""), ("D", "C", "")],
)  # fmt: skip
def test_an_allergy_is_what_its_status_says(action: str, status: str, name: str) -> None:
    """IAM-17, table 0438; IAM-6, table 0206."""
    made = document(f"IAM|1|DA|1191^Aspirin^RXNORM|||{action}{'|' * 11}{status}", kind="allergy")
    assert {one: made[one] for one in ASSERTIONS if one in made} == ({name: ["Aspirin"]} if name else {})


def test_a_code_for_the_family_is_of_the_family() -> None:
    made = document("DG1|1||Z83.3^Family history of diabetes mellitus^I10", kind="diagnosis")
    assert made["family"] == ["Family history of diabetes mellitus"]
    assert "affirmed" not in made


def test_names_are_gone_before_anything_is_derived() -> None:
    """Canaries: the patient's name and number, in every kind of statement and script."""
    lines = (
        "Ilse Vantongeren has a cough. No Vantongeren. Possible Vantongeren (7001).",
        "Mother of Ilse has asthma. 患者Vantongeren无发热。",
    )
    segments = [f"OBX|{place}|TX|N^Note^L||{line}" for place, line in enumerate(lines)]
    made = document(*segments, charset="UNICODE UTF-8")
    for name in ASSERTIONS:
        assert not [word for word in ("Ilse", "Vantongeren", "7001") if word in " ".join(made.get(name, ()))]
    assert "cough" in " ".join(made["affirmed"])


# -------------------------------------------------------------------------------------------------------------- Chinese

CHINESE = "患者王小明，男，身份证号11010519491231002X，胸痛3天，无发热、咳嗽。否认糖尿病史。父亲患高血压。肺炎待排。"


@pytest.mark.parametrize("charset", ["GB18030", "UNICODE UTF-8"])
def test_a_chinese_note(charset: str) -> None:
    made = document(f"OBX|1|TX|N^Note^L||{CHINESE}", charset=charset)
    assert "王小明" not in made["value_text"]
    assert "11010519491231002X" not in made["value_text"]
    said = {name: " ".join(made[name]) for name in ASSERTIONS}
    for name, words in {
        "affirmed": ("胸痛3天",),
        "negated": ("发热、咳嗽", "糖尿病史"),
        "family": ("高血压",),
        "uncertain": ("肺炎",),
    }.items():
        for word in words:
            assert [one for one in ASSERTIONS if word in said[one]] == [name], word
        assert not [one for one in ("王小明", "11010519491231002X") if one in said[name]]


def test_an_identity_number_alone_goes_by_its_check_character() -> None:
    """11010519491231002X is the example of GB 11643-1999."""
    made = document("OBX|1|TX|N^Note^L||胸痛 11010519491231002X 无发热", charset="GB18030")
    assert "11010519491231002X" not in str(made)
    assert made["negated"] == ["发热"]


def test_three_scripts_in_one_note() -> None:
    text = "No fever. 否认胸痛，有咳嗽。 Kein Anhalt für Pneumonie. Боль в груди. Possible asthma."
    made = understand(text)
    assert made.negated == ("fever", "胸痛", "Pneumonie")
    assert made.uncertain == ("asthma",)
    assert "Боль в груди" in " ".join(made.affirmed)
    assert "有咳嗽" in " ".join(made.affirmed)


def test_read_by_the_stage_as_it_comes_from_the_wire() -> None:
    """The whole way of `streams.stages`, from bytes in GB18030 whose second bytes hold separators."""
    raw = "\r".join(
        (
            "MSH|^~\\&|APP|FAC|US|HERE|20260301120000||ORU^R01|C1|P|2.5||||||GB18030",
            PID,
            "OBX|1|TX|N||葉珅誠 无胸痛",
            "",
        )
    ).encode("gb18030")
    envelope = Envelope("e", "s", "", "", "", "2026-03-01T12:05:00Z", "", "", (), (), (), b"")
    made = STAGES["ehr"].document(ehr.read(raw, envelope, Peers()))
    assert [one.clear["negated"] for one in made if one.kind == "observation"] == [["胸痛"]]


# -------------------------------------------------------------------------------------------------------------- hostile


def seconds(text: str) -> float:
    """Of the processor, the least of three."""
    spent = []
    for _ in range(3):
        started = time.process_time()
        understand(text)
        spent.append(time.process_time() - started)
    return min(spent)


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "mother ",
            "no ",
            "no a, ",
            "否认咳，",
            "? ",
            "x negative and ",
            "fever ",
            "A: ",
            "\n",
            "likely, ",
            "可能",
            "(",
        ),
        *(
            "x was not seen, ",
            "x in her mother, ",
            "患者 fever ",
            "no fever or ",
            "无发热、",
            "and " * 50 + "negative ",
        ),
    ],
)
def test_time_is_in_proportion_to_length(unit: str) -> None:
    """Four times the text takes some four times as long; sixteen would be the square."""
    short, long = (seconds(unit * (size // len(unit))) for size in (30_000, 120_000))
    assert long < 8 * short + 0.01


def test_a_note_of_five_megabytes_is_cut_and_flagged() -> None:
    lines = [f"OBX|1|TX|N^Note^L||{'No fever. Cough for three days. ' * 163_840}"]
    made = document(*lines)
    assert len(made["value_text"]) > 5_000_000
    assert made["flags"] == [CUT]
    assert 0 < sum(map(len, made["negated"] + made["affirmed"])) <= LIMIT
