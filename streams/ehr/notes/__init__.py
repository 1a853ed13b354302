"""Clinical notes understood: what a text affirms of the patient, denies, doubts, or says of the family. Pure.

No list of findings: every word of a text goes to one of four fields, and the index finds it there. So "no chest pain"
is found as denied, whatever it is that is denied. docs/notes.md has what is understood, what is not, and figures.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from schemas.document import Document
from streams.ehr.notes import chinese, scope
from streams.ehr.notes.abbreviations import expand
from streams.ehr.notes.scope import TURNS, Scope
from streams.ehr.notes.sections import sections, sentences
from streams.ehr.notes.triggers import AFFIRMED, FAMILY, NEGATED, UNCERTAIN

__all__ = ["ASSERTIONS", "Understood", "assertion", "expand", "tell", "understand"]

ASSERTIONS = ("affirmed", "uncertain", "family", "negated")  # by their number
LIMIT = 1_000_000  # characters of a text that are looked at; the rest is found as text alone, and the document flagged
CUT = "long_text"

# What of each kind of part states something of its patient. An observation's name says only what was asked.
TELLING = {
    "note": ("body",),
    "observation": ("value_text",),
    "diagnosis": ("display",),
    "visit": ("admit_reason",),
    "order": ("reason", "relevant_information"),
    "procedure": ("display",),
    "medication": ("display",),
    "immunization": ("display",),
    "allergy": ("display", "reactions"),
    "appointment": ("reason",),
    "report": ("note",),  # of images
}
# Answers to the question that an observation's name is.
NO = frozenset(
    ("negative", "not detected", "none", "none detected", "no", "absent", "nonreactive", "non-reactive", "not present")
    + ("none seen", "阴性", "无", "nein", "negativ")
)
YES = frozenset(("positive", "detected", "yes", "present", "reactive", "阳性", "有", "ja", "positiv"))
# FHIR R4 condition-ver-status and what HL7 v2 senders write in PRB-13, PRB-14.
REFUTED = frozenset(("refuted", "ruled out", "ruled-out", "ruledout", "excluded"))
UNSURE = frozenset(("provisional", "differential", "unconfirmed", "suspected", "possible", "probable", "rule out"))
MISTAKEN = frozenset(("entered-in-error", "entered in error"))
# IAM-17 (table 0438): unconfirmed, pending, suspect, doubt raised; and erroneous.
ALLERGY_UNSURE, ALLERGY_MISTAKEN = frozenset("upsd"), "e"
DELETED = frozenset(("D", "DE"))  # actions of DG1-21, PR1-20, IAM-6 (table 0206), RXA-21 (0323), PRB-1 (0287)
NOT_GIVEN = frozenset(("re", "na", "not-done", "not-taken"))  # RXA-20 (table 0322), FHIR's statuses

# The end of a fully specified name of SNOMED CT, which is no part of what was found.
_TAG = re.compile(r"\s*\((?:qualifier value|finding|disorder|situation|observable entity)\)\s*$")
_RUNS = re.compile(b"|".join(rb"%c+" % label for label in range(TURNS)))
_EDGES = " \t\r\n\u3000.,;:!?。，、；：！？()（）*#•-–—"


@dataclass(frozen=True, slots=True)
class Understood:
    """The pieces of a text by assertion, abbreviations written out, and the sections that it has."""

    affirmed: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()
    family: tuple[str, ...] = ()
    negated: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    cut: bool = False  # longer than LIMIT


def understand(text: str) -> Understood:
    """What a text in clear says. Costs time in proportion to its length, whatever stands in it."""
    seen = text[:LIMIT]
    labels, names = _labels(seen)
    pieces: tuple[list[str], ...] = ([], [], [], [])
    for run in _RUNS.finditer(labels):
        if piece := seen[run.start() : run.end()].strip(_EDGES):
            pieces[labels[run.start()]].append(expand(piece))
    affirmed, uncertain, family, negated = map(tuple, pieces)
    return Understood(affirmed, uncertain, family, negated, names, len(text) > LIMIT)


def assertion(sentence: str, concept: str) -> str:
    """What a sentence says of one concept in it: one of ASSERTIONS.

    Where the concept stands several times one that is affirmed is enough, then one that is doubted. Where it does not
    stand as written, its longest word does; raises ValueError where no word of it is there.
    """
    said = {_said(sentence, place) for place in _places(sentence, concept)}
    return next(ASSERTIONS[label] for label in (AFFIRMED, UNCERTAIN, NEGATED, FAMILY) if label in said)


def tell(document: Document) -> None:
    """Add to a document what its text says, from fields that are already in clear and scrubbed."""
    if (names := TELLING.get(document.kind)) is None:
        return
    clear = document.clear
    texts = [
        text for name in names if (value := clear.get(name)) for text in ([value] if isinstance(value, str) else value)
    ]
    if not texts:
        return
    found = [_answered(clear, text) if document.kind == "observation" else understand(text) for text in texts]
    if document.kind in ("diagnosis", "immunization", "procedure", "medication", "allergy"):
        found = [_judged(clear, one, allergy=document.kind == "allergy") for one in found]
    for name in ASSERTIONS:
        if pieces := [piece for one in found for piece in getattr(one, name)]:
            clear[name] = pieces
    if headings := list(dict.fromkeys(name for one in found for name in one.sections)):
        clear["sections"] = headings
    if any(one.cut for one in found):
        clear["flags"] = [*clear.get("flags", ()), CUT]


def _answered(clear: dict[str, object], text: str) -> Understood:
    """An observation's value: where it is a yes or a no, its name is what is affirmed or denied."""
    text = _TAG.sub("", text)
    answer, asked = text.strip(" .").lower(), clear.get("display")
    if isinstance(asked, str) and answer in NO:
        return Understood(negated=(expand(asked),))
    if isinstance(asked, str) and answer in YES:
        return Understood(affirmed=(expand(asked),))
    return understand(text)


def _judged(clear: dict[str, object], found: Understood, *, allergy: bool) -> Understood:
    """A coded statement whose status says that it does not hold, or may not."""
    said = {str(clear.get(name, "")).lower() for name in ("confirmation", "status")}
    of_allergy = str(clear.get("status", "")).lower() if allergy else ""
    if said & MISTAKEN or of_allergy == ALLERGY_MISTAKEN or clear.get("action") in DELETED:
        return Understood()
    if said & REFUTED or said & NOT_GIVEN or clear.get("do_not_perform"):
        return Understood(negated=found.affirmed + found.uncertain + found.negated, family=found.family)
    if said & UNSURE or of_allergy in ALLERGY_UNSURE:
        return Understood(uncertain=found.affirmed + found.uncertain, negated=found.negated, family=found.family)
    return found


def _labels(text: str, whole: tuple[int, int] = (0, 0)) -> tuple[bytearray, tuple[str, ...]]:
    """One label a character, and the names of the sections."""
    labels = bytearray(len(text))
    names: dict[str, None] = {}
    han = not text.isascii() and chinese.HAN.search(text) is not None
    plain = not han and not scope.telling(text)
    for section in sections(text):
        if section.name:
            names[section.name] = None
        if section.says != AFFIRMED:
            labels[section.start : section.end] = bytes((section.says,)) * (section.end - section.start)
        if plain:
            continue
        for start, end in sentences(text, section.start, section.end):
            if scope.telling(text[start:end]):
                _paint(labels, [*scope.scopes(text, start, end, whole)])
            if han:
                _paint(labels, [*chinese.scopes(text, start, end, whole)])
    return labels, tuple(names)


def _paint(labels: bytearray, found: list[Scope]) -> None:
    for label in (UNCERTAIN, FAMILY, NEGATED, TURNS):
        for one in found:
            if one.label == label:
                labels[one.start : one.end] = bytes((label,)) * (one.end - one.start)


def _said(sentence: str, place: tuple[int, int]) -> int:
    labels = Counter(_labels(sentence, place)[0][place[0] : place[1]])
    labels.pop(TURNS, None)
    return labels.most_common(1)[0][0] if labels else AFFIRMED


def _places(sentence: str, concept: str) -> list[tuple[int, int]]:
    words = re.findall(r"[^\W_]+", concept)
    for wanted in (words, sorted(words, key=len)[-1:]):
        pattern = r"[\W_]+".join(map(re.escape, wanted))
        for edge in (r"(?<![^\W_])", ""):
            found = [one.span() for one in re.finditer(edge + pattern, sentence, re.IGNORECASE)] if wanted else []
            if found:
                return found
    raise ValueError("no word of the concept stands in the sentence")
