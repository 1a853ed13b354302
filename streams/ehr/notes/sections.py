"""Sections of a note by their headings, in English, German and Chinese, and its sentences.

A section has the name of its LOINC document section (C-CDA R2.1 and the LOINC codes that it uses are in the table).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from streams.ehr.notes.triggers import AFFIRMED, FAMILY, NEGATED, RELATIVES, UNCERTAIN

LONGEST = (
    1000  # characters of a sentence: what goes on without an end is cut, so that no text costs more than in proportion
)

# Name, LOINC code, headings.
_TABLE = """
chief_complaint            10154-3  chief complaint; cc; presenting complaint; reason for visit; 主诉; hauptbeschwerde; aufnahmegrund
history_of_present_illness 10164-2  history of present illness; hpi; history of presenting illness; present illness; 现病史; aktuelle anamnese; jetzige anamnese; anamnese
past_medical_history       11348-0  past medical history; pmh; pmhx; past history; medical history; past medical/surgical history; history of past illness; 既往史; 既往病史; vorerkrankungen; eigenanamnese
past_surgical_history      47519-4  past surgical history; psh; surgical history; procedures; 手术史; operationen
family_history             10157-6  family history; family hx; fh; fhx; family medical history; 家族史; 家族病史; familienanamnese
social_history             29762-2  social history; sh; habits; 个人史; 婚育史; sozialanamnese
allergies                  48765-2  allergies; allergy; drug allergies; allergies and adverse reactions; 过敏史; 药物过敏史; allergien
medications                10160-0  medications; meds; current medications; home medications; discharge medications; admission medications; medications on admission; 用药史; 目前用药; 出院带药; medikation; medikamente
review_of_systems          10187-3  review of systems; ros; systematische anamnese
vital_signs                8716-3   vital signs; vitals; 生命体征; vitalparameter; vitalzeichen
physical_exam              29545-1  physical exam; physical examination; exam; examination; pe; on examination; 查体; 体格检查; 体检; untersuchungsbefund; körperlicher untersuchungsbefund; befund
results                    30954-2  results; laboratory data; labs; laboratory; data; laboratory results; 辅助检查; 实验室检查; 检查结果; labor; laborbefunde
findings                   59776-5  findings; 检查所见; 影像所见; 所见; befunde
impression                 19005-8  impression; conclusion; conclusions; opinion; 印象; 诊断意见; 结论; beurteilung
indications                59768-2  indication; indications; reason for exam; reason for study; clinical indication; clinical history; 检查目的; indikation; fragestellung
assessment                 51848-0  assessment; assessment and plan; a/p; assessment/plan; diagnosis; diagnoses; 诊断; 初步诊断; 入院诊断; diagnose; diagnosen
hospital_course            8648-8   hospital course; brief hospital course; course; 诊疗经过; 住院经过; verlauf
discharge_diagnosis        11535-2  discharge diagnosis; discharge diagnoses; final diagnosis; 出院诊断; entlassungsdiagnose; entlassungsdiagnosen
plan                       18776-5  plan; treatment plan; plan of care; recommendations; recommendation; 治疗计划; 诊疗计划; 处理; procedere; therapie
instructions               8653-8   discharge instructions; instructions; follow up; follow-up; followup; 出院医嘱; 医嘱
return_precautions         69730-0  return precautions; return instructions; when to return
differential               -        differential diagnosis; differential diagnoses; differential; ddx; 鉴别诊断; differentialdiagnose; differentialdiagnosen
suspected                  -        suspected diagnosis; 拟诊; 疑似诊断; verdachtsdiagnose; verdachtsdiagnosen
pertinent_negatives        -        pertinent negatives; negatives; negative findings; 阴性体征
"""  # noqa: E501
_NAMES: dict[str, str] = {}
for _line in _TABLE.strip().splitlines():
    _name, _, _headings = _line.split(maxsplit=2)
    _NAMES |= {one.strip(): _name for one in _headings.split(";")}
# What a section says of all in it, where its sentences say nothing else.
SAYS = {
    "family_history": FAMILY,
    "differential": UNCERTAIN,
    "suspected": UNCERTAIN,
    "return_precautions": UNCERTAIN,
    "pertinent_negatives": NEGATED,
}
_HEADING = re.compile(
    r"(?:^|(?<=[.;。；!?]))[ \t\u3000]*(?:[#*•>-]{1,3}[ \t]*)?(?:\d{1,2}[.)、][ \t]*)?"
    r"(?P<name>[^\W\d_][^\n.:：;；,，。?!(]{0,40})(?:(?P<colon>[:：])|[ \t]*$)",
    re.MULTILINE,
)
# A line that goes on in the next one ends without a point, and was broken for its length or before a small letter.
_WRAPPED = 60
_BREAK = re.compile(r"[。！？；;]|[.!](?=[\s\"')\]]|$)|(?<=\S)\?(?=\s|$)|\n")
_NO_END = re.compile(
    r"(?:(?<![^\W_])(?:dr|mr|mrs|ms|prof|st|vs|approx|e\.g|i\.e|cf|al|fig|z\.b|bzw|ca|v\.a|z\.n|st\.p|\w))\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Section:
    name: str  # of _TABLE; empty for what no heading of it stands before
    start: int
    end: int

    @property
    def says(self) -> int:
        return SAYS.get(self.name, AFFIRMED)


def sections(text: str) -> list[Section]:
    """Where each begins and ends, heading left out. A heading that we do not know ends the one before."""
    if ":" not in text and "\n" not in text and "：" not in text:
        return [Section("", 0, len(text))]
    found: list[Section] = []
    name, start = "", 0
    for heading in _HEADING.finditer(text):
        said = " ".join(heading["name"].lower().split())
        known = _NAMES.get(said)
        if known is None and not (heading["colon"] and _ends(text, heading, said)):
            continue
        found.append(Section(name, start, heading.start("name")))
        name, start = known or "", heading.end() if known else heading.start("name")
    found.append(Section(name, start, len(text)))
    return [one for one in found if one.start < one.end]


def _ends(text: str, heading: re.Match[str], said: str) -> bool:
    """A line of its own, "Vitals on arrival: ...", that speaks of no relative: "Mother: diabetes" goes on."""
    begins = heading.start() == 0 or text[heading.start() - 1] == "\n"
    return begins and heading["name"][0].isupper() and RELATIVES.isdisjoint(said.split())


def sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """First and last of each sentence of a stretch of text."""
    first = start
    for found in _BREAK.finditer(text, start, end):
        if not _is_end(text, first, found.start(), end):
            continue
        yield from _bounded(first, found.end())
        first = found.end()
    yield from _bounded(first, end)


def _bounded(first: int, end: int) -> Iterator[tuple[int, int]]:
    for cut in range(first, end, LONGEST):
        yield cut, min(cut + LONGEST, end)


def _is_end(text: str, first: int, place: int, end: int) -> bool:
    char = text[place]
    if char == ".":
        follows = text[place + 1 : place + 3].strip()
        return not (_NO_END.search(text, max(first, place - 5), place) and not follows[:1].isspace()) or not follows
    if char != "\n":
        return True
    follows = text[place + 1 : place + 2]
    if not follows or follows.isspace() or text[place - 1 : place] in ":：":
        return not follows or follows.isspace()
    wrapped = place - text.rfind("\n", max(0, place - 200), place) > _WRAPPED
    return not (follows.islower() or (wrapped and follows.isalnum() and text[place - 1 : place] not in ".!?;"))
