"""Names of persons in a text: by title, by degree, by the words before them, by a given name among them. Pure.

A word that clinical text writes with a capital (`schemas.lexicon`) is nobody's name, unless a title stands before it:
the Foley catheter stays, Mr. Foley goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from schemas.lexicon import AMBIGUOUS, EPONYMS, GIVEN, MONTHS, ORDINARY, PRODUCTS, words
from schemas.span import Span

_TITLES = words(
    """
    Mr Mrs Ms Miss Mx Dr Drs Doctor Prof Professor Sir Rev Herr Herrn Frau Fr Hr Mme Mlle Monsieur Madame Sr Sra Señor
    Señora Nurse Dhr Mevr MR MRS MS DR PROF
    """
)
_DEGREES = words(
    "MD M.D DO RN LPN NP PA PA-C PhD Ph.D PharmD MBBS FACS DDS DMD CRNA APRN CNM MSN BSN FRCP MRCP DPM LCSW"
)
_PARTICLES = words("van von de der den del della di da dos du la le ten ter zu bin ibn al el y e zur")
_KIN = words(
    """
    daughter son wife husband mother father brother sister spouse partner friend neighbor neighbour aunt uncle
    cousin nephew niece grandmother grandfather grandson granddaughter fiance fiancee caregiver roommate
    girlfriend boyfriend
    """
)
_DONE = words(
    """
    seen examined performed signed dictated transcribed reviewed reported authored referred verified
    interpreted administered ordered requested assisted accompanied written completed entered prescribed
    assessed evaluated operated attended prepared approved authenticated cosigned witnessed
    """
)
_FIELDS = words(
    """
    patient pt name subject person author practitioner provider performer requester physician surgeon
    beneficiary attending doctor consultant nurse contact informant guardian witness kin nok signature signed
    pathologist radiologist
    """
)
_SPOKEN = words(
    """
    spoke discussed talked met named known called about client resident report
    """
)
CUES = (
    _TITLES
    | _DEGREES
    | {said for word in _KIN | _DONE | _FIELDS | _SPOKEN for said in (word, word.capitalize(), word.upper())}
    | {name.upper() for name in GIVEN if len(name) > 2}
)


_MAYBE = words("patient pt person author subject attending surgeon physician about client resident")
_TALKED = words("spoke discussed talked met")
_PAIRS = (
    {("name", "is"), ("known", "as")}
    | {(one, "by") for one in _DONE}
    | {(one, to) for one in _TALKED for to in ("to", "with")}
)
_DOES = re.compile(
    r"\s(?:reports?|denies|denied|states|stated|complains?|complained|presented|presents|says|said|lives|wants|wishes|"
    r"feels|eats|agrees|refuses|asks)\b"
)
_EPONYMIC = re.compile(
    r"(?:['’]s?)?[ -](?i:disease|syndrome|signs?|tests?|score|scale|catheter|lymphoma|palsy|tubes?|drain|procedure|"
    r"operation|man(?:eu|oeu)ver|position|criteria|class(?:ification)?|reflex|phenomenon|nodes?|contracture|fracture|tremor|"
    r"stain(?:ing)?|thyroiditis|esophagus|disorder|chorea|ataxia|sarcoma|spots?|cells?|bodies|method|formula|index|needle|"
    r"forceps|clamp|solution|repair|incision|point|angle|line|law|triad|murmur|virus|factor|antigen|equation|wave|curve|"
    r"ratio|staging|grade)\b"
)
_TOKEN = re.compile(r"[^\W\d_](?:[^\W\d_]|['’.-](?=[^\W\d_]))*")
_LONGEST = 6  # words of a name


class _Word(NamedTuple):
    start: int
    end: int
    text: str  # without 's
    upper: bool
    glue: str  # what stands between it and the word before


def names(text: str) -> Iterator[Span]:
    said = list(_words(text))
    done = 0
    for at, word in enumerate(said):
        if at < done or not word.upper:
            continue
        first, end = _titled(said, at) if word.text in _TITLES else _person(said, at, text)
        if end > first:
            yield Span(said[first].start, said[end - 1].end, "name")
            done = end


def known(word: str) -> bool:
    """Whether clinical text has this word with a capital and means nobody."""
    return _ordinary(word) or _plain(word) in EPONYMS or _plain(word) in MONTHS


def _ordinary(word: str) -> bool:
    return word in ORDINARY or _plain(word) in ORDINARY or _plain(word) in PRODUCTS


def _plain(word: str) -> str:
    return word.capitalize() if word.isupper() else word


def _given(word: str) -> bool:
    plain = _plain(word) if len(word) > 2 else word
    return plain in GIVEN or plain.split("-")[0] in GIVEN


def _words(text: str) -> Iterator[_Word]:
    last = 0
    for found in _TOKEN.finditer(text):
        said, end = found[0], found.end()
        if said.endswith(("'s", "’s")):
            said, end = said[:-2], end - 2
        yield _Word(found.start(), end, said, said[0].isupper(), text[last : found.start()])
        last = end


def _titled(said: list[_Word], at: int) -> tuple[int, int]:
    first = at + 1
    if first == len(said) or said[first].glue.strip() not in ("", "."):
        return first, first
    return first, _through(said, first, told=True)


def _person(said: list[_Word], at: int, text: str) -> tuple[int, int]:
    """The first word and the end of a person's name that begins at a word with a capital, or nothing: (at, at)."""
    if _stops(said, at, inside=True):
        return at, at
    sure, kin, maybe = _told(said, at)
    end = _through(said, at, sure or maybe)
    behind = said[end - 1].end
    if end == at or text[behind : behind + 1].isdigit() or (_EPONYMIC.match(text, behind) and not sure):
        return at, at
    texts = [one.text for one in said[at:end]]
    whole = sum(one.upper and len(one.text) > 1 for one in said[at:end])
    given = any(_given(one) for one in texts)
    strange = not all(known(one) for one in texts)
    person = (
        (sure and whole)
        or _graduate(said, end)
        or (kin and strange)
        or (maybe and (whole > 1 or (given and strange)))
        or (given and whole > 1 and not all(one in EPONYMS for one in texts))
        or (whole and strange and _initialled(said, at))
        or (whole == 1 and _alone(texts[0], text, behind))
    )
    return (at, end) if person else (at, at)


def _told(said: list[_Word], at: int) -> tuple[bool, bool, bool]:
    """What the words before say of a name: that it surely is one, that a relative's is likely, that one may be."""
    if at == 0:
        return False, False, False
    glue = said[at].glue.strip(' "“(\n')
    before = said[at - 1].text.lower()
    pair = (said[at - 2].text.lower() if at > 1 else "", before)
    sure = (glue in (":", "=") and before in _FIELDS) or (glue == "" and (before == "named" or pair in _PAIRS))
    kin = glue in ("", ",") and before.removeprefix("ex-") in _KIN
    return sure, kin, glue == "" and (before in _MAYBE or pair == ("report", "for"))


def _graduate(said: list[_Word], end: int) -> bool:
    return end < len(said) and said[end].text in _DEGREES and said[end].glue.strip() in (",", "")


def _initialled(said: list[_Word], at: int) -> bool:
    return len(said[at].text) == 1 and at + 1 < len(said) and said[at + 1].glue.startswith(".")


def _alone(name: str, text: str, end: int) -> bool:
    """Whether one word alone is a person's: a name that is nothing else, or the subject of what only persons do."""
    if _DOES.match(text, end):
        return _given(name) or not (name.isupper() or known(name) or name in AMBIGUOUS)
    return _given(name) and not (name in AMBIGUOUS or known(name) or name.isupper())


def _through(said: list[_Word], at: int, told: bool) -> int:
    """The end of the run of names that begins here: capitals, initials, particles, one comma between the two halves."""
    end = at
    for position in range(at, min(at + _LONGEST, len(said))):
        word = said[position]
        if position > at and not _continues(said, at, position, told):
            break
        if word.upper:
            if _stops(said, position, told or position > at):
                break
            end = position + 1
        elif word.text not in _PARTICLES:
            break
    return end


def _continues(said: list[_Word], at: int, position: int, told: bool) -> bool:
    """Whether two words are of one name: a space, an initial's stop or the first comma is between."""
    word, before = said[position], said[position - 1]
    match word.glue.strip():
        case "":
            return True
        case ".":
            return len(before.text) == 1
        case ",":
            return position == at + 1 and word.upper and (told or _given(word.text))
    return False


def _stops(said: list[_Word], position: int, inside: bool) -> bool:
    """Whether a word with a capital is no name. Inside a name, or behind a word that tells of one, more can be."""
    word = said[position].text
    if _initialled(said, position) or (inside and word.capitalize() in AMBIGUOUS):
        return False
    return _ordinary(word) or word in _DEGREES or word in MONTHS or word in _TITLES
