"""What in a text identifies somebody, whoever it is: by shape, by check digit, by the words around. Pure.

The classes are those of 45 CFR 164.514(b)(2)(i): names, places smaller than a state, dates but for their year, ages
over 89, telephones, mails, numbers of all kinds, web and network addresses. Clinical numbers keep their place: a rule
asks for a shape that no dose, range, score or code has, or for a word before it that says what the number is.
docs/deidentification.md has what is found and missed, measured.

Every repetition is bounded: a text of any length and content costs time in proportion to its length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from schemas.chinese import chinese, identity_numbers
from schemas.lexicon import GIVEN, MONTHS, words
from schemas.names import CUES, known, names
from schemas.span import Span


class _Rule(NamedTuple):
    """Group `it` of a pattern is what identifies, else all of it. `holds` says what a pattern cannot."""

    kind: str
    pattern: re.Pattern[str]
    holds: Callable[[re.Match[str]], bool] = lambda found: True


def identifiers(text: str) -> list[Span]:
    """Every span of a text, in NFKC, that says who somebody is. Most texts have none: a few looks tell that."""
    found: list[Span] = []
    if "@" in text or "://" in text or "www." in text:
        found += _matches(_WEB, text)
    if _DIGITAL.search(text):
        found += _matches(_NUMBERS, text)
        found += identity_numbers(text)
    if _HOUSE.search(text):
        found += _matches(_STREETS, text)
    if telling := _TELLING.intersection(_LETTERS.findall(text)):
        found += _told(text, telling)
    if not text.isascii():
        found += chinese(text)
    return found


def _told(text: str, telling: frozenset[str]) -> Iterator[Span]:
    """What words tell of: names of persons and months, what a number or an address is."""
    if not GIVEN.isdisjoint(telling) or (not CUES.isdisjoint(telling) and _CAPITAL.search(text, 1)):
        yield from names(text)
    if not _LABELS.isdisjoint(telling) and _DIGIT.search(text):
        yield from _matches(_LABELLED, text)
    if not MONTHS.isdisjoint(telling):
        yield from _matches(_WRITTEN_DATES, text)
    if not _DWELLING.isdisjoint(telling):
        yield from _matches(_RESIDENCES, text)


def _matches(rules: Iterable[_Rule], text: str) -> Iterator[Span]:
    for kind, pattern, holds in rules:
        group = "it" if "it" in pattern.groupindex else 0
        for found in pattern.finditer(text):
            if holds(found):
                yield Span(*found.span(group), kind)


# ------------------------------------------------------------------------------------------------------ numbers alone

_YEAR = r"(?:18|19|20)\d\d"
_CLOCK = r"(?:T\d\d:?\d\d(?::?\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?"
_FREE = r"(?<![\w./-])"  # no part of a longer number or code
_END = r"(?![\w/-]|\.\d)"
_EXTENSION = r"(?:\s?(?:x|ext\.?)\s?\d{1,6})?"


def _day(found: re.Match[str]) -> bool:
    first, second = sorted((int(found["a"]), int(found["b"])))
    return 1 <= first <= 12 and second <= 31


def _octets(found: re.Match[str]) -> bool:
    return all(int(one) < 256 for one in found[0].split("."))


_CODED = re.compile(r"(?i:code|snomed(?: ct)?|rxnorm|loinc|ndc|icd\S{0,8}|cpt|oid|lot)[\s:='\"(]{0,3}\Z")


def _uncoded(found: re.Match[str]) -> bool:
    """No word before it says that the number is a code of a terminology."""
    return not _CODED.search(found.string, max(0, found.start() - 24), found.start())


def _national(number: str) -> bool:
    """Long enough for a number with its area, and not the hours of a chart: 0600 1200 1800."""
    groups = _DIGITS.findall(number)
    return sum(map(len, groups)) >= 9 and not all(_HOUR.fullmatch(group) for group in groups)


_DIGITS = re.compile(r"\d+")
_HOUR = re.compile(r"(?:[01]\d|2[0-3])[0-5]\d")
_NUMBERS = (
    _Rule("date", re.compile(rf"{_FREE}{_YEAR}([-/.])(?P<a>\d\d?)\1(?P<b>\d\d?){_CLOCK}(?![\w/]|[-.]\d)"), _day),
    _Rule("date", re.compile(rf"{_FREE}(?P<a>\d\d?)([-/.])(?P<b>\d\d?)\2{_YEAR}{_END}"), _day),
    _Rule("date", re.compile(rf"{_FREE}(?P<a>\d\d?)/(?P<b>\d\d?)/\d\d{_END}"), _day),
    _Rule("date", re.compile(rf"{_FREE}(?P<a>\d\d)([-.])(?P<b>\d\d)\2\d\d{_END}"), _day),
    _Rule("date", re.compile(rf"{_FREE}{_YEAR}(?P<a>0\d|1[0-2])(?P<b>[0-2]\d|3[01])(?:\d{{4}}|\d{{6}})?{_END}"), _day),
    _Rule("date", re.compile(rf"{_FREE}{_YEAR}[-/](?:0[1-9]|1[0-2]){_END}")),
    _Rule(
        "phone", re.compile(rf"(?<![\w+])\+\d{{1,3}}(?:[ ./-]?\(0\))?(?:[ ./()-]{{0,2}}\d){{6,13}}{_EXTENSION}(?!\w)")
    ),
    _Rule(  # North America
        "phone",
        re.compile(
            rf"(?<![\w.-])(?:(?:\+|00)?1[ .-]?)?(?:\(\d{{3}}\)\s?|\d{{3}}[ .-])\d{{3}}[ .-]\d{{4}}{_EXTENSION}(?![\w-])"
        ),
    ),
    _Rule("phone", re.compile(rf"(?<![\w.-])[2-9]\d{{2}}[2-9]\d{{6}}{_EXTENSION}(?![\w-]|\.\d)"), _uncoded),
    _Rule(  # with the prefix of a trunk call
        "phone",
        re.compile(
            r"(?<![\w./-])(?:\(0\d{1,5}\)\s?|0\d{1,5}[ /-])\d{3,8}(?:[ -]\d{2,6}){0,3}(?![\w/:-]|\.\d)"
            r"|(?<![\w./-])(?:0[1-9](?:[ .-]?\d\d){4}|0\d{9,10})(?![\w-]|\.\d)"
        ),
        lambda found: _uncoded(found) and _national(found[0]),
    ),
    _Rule("id", re.compile(r"(?<![\w-])(?!000|666)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")),  # SSA: no such areas
    _Rule("id", re.compile(r"(?<![\w.-])(?:[A-Z]{2,5}\d{5,16}|0\d{4,16})(?![\w-]|[.,]\d)"), _uncoded),  # 00471199
    _Rule("id", re.compile(r"(?<!\w)\d{8,12}(?= \((?:NPI|MRN|SSN|MR)\))")),
    _Rule("net", re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])"), _octets),
    _Rule("age", re.compile(r"(?<![\w.])(?:9\d|1[01]\d)(?=(?:[- ]?(?:years?|yrs?|y))[- /]?(?:old|o)\b|[- ]?yo\b)")),
)
_DIGITAL = re.compile(
    r"[0-9](?:[0-9]{4}|([/.-])[0-9]{1,2}\1[0-9][0-9]|[0-9]{3}[/-][01][0-9]|[0-9]{0,2}[)][ 0-9]|"
    r"[0-9]{1,2}[ .-][0-9]{3}[ .-]?[0-9]|[0-9]([ .-])[0-9][0-9]\2[0-9]|"
    r"[0-9]{0,4}[ /-][0-9]{3,8}|[0-9][0-9]?[- ]?y|[.][0-9]{1,3}[.][0-9])"
)
_SITES = r"(?:[\w-]{1,63}\.){0,4}(?:hl7\.org|loinc\.org|snomed\.info|unitsofmeasure\.org|nih\.gov|who\.int|cdc\.gov)\b"
_WEB = (
    _Rule("mail", re.compile(r"(?<![\w.+'-])[\w.+'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")),
    _Rule("web", re.compile(rf"\b(?:https?://|www\.)(?!{_SITES})[^\s<>\"')\]]{{1,500}}[^\s<>\"')\].,;]")),
)

# ------------------------------------------------------------------------------------- numbers that a word tells of

_TELEPHONE = sorted(
    words(
        "telephone telefon tel phone ph mobile mob cell cellular fax pager call callback called handy contact whatsapp"
    ),
    reverse=True,  # longest first, where one begins another
)
_NUMBERED = sorted(
    words(
        """
        mrn mr ssn nhs npi dea nhi hcn vin record records patient pat chart account acct case accession policy member
        subscriber insurance security passport license licence visit encounter hospital serial device card medicare
        medicaid beneficiary identifier identification specimen id fallnummer versichertennummer patientennummer
        """
    ),
    reverse=True,
)


def _cased(said: Iterable[str]) -> frozenset[str]:
    return frozenset(made for word in said for made in (word, word.upper(), word.capitalize()))


_LABELS = _cased([*_TELEPHONE, *_NUMBERED, "on", "since", "until", "dated", "from"])
_LABELLED = (
    _Rule(
        "phone",
        re.compile(
            rf"(?i:\b(?:{'|'.join(_TELEPHONE)})(?: (?:no|number|at|on|nr))?\.?[\s:#=]{{1,3}})"
            r"(?P<it>\+?\(?\d(?:[ ./()-]{0,2}\d){5,14}(?:\s?x\s?\d{1,6})?)(?!\w)"
        ),
    ),
    _Rule(
        "id",
        re.compile(
            rf"(?i:(?<!\w)(?:{'|'.join(_NUMBERED)})(?: ?(?:id(?:entifier)?|no|numbers?|nr|nummer|records?))?)"
            r"[\s:#=.]{0,3}"
            r"(?P<it>(?=(?:[A-Za-z-]{0,12}\d){3})[A-Za-z0-9][A-Za-z0-9-]{3,40})(?!\w)"
        ),
        lambda found: not re.match(r"\d{1,3}-", found["it"]),  # patient 24-hour
    ),
    _Rule("date", re.compile(rf"(?i:\b(?:on|since|until|dated|from)) (?P<it>(?P<a>\d\d?)/(?P<b>\d\d?)){_END}"), _day),
)

# ---------------------------------------------------------------------------------------------------- dates in words

_MONTH = (
    r"(?:Jan(?:uary|uar)?|Feb(?:ruary|ruar)?|Mar(?:ch)?|März|Apr(?:il)?|May|Mai|June?|Juni|July?|Juli|Aug(?:ust)?"
    r"|Sept?(?:ember)?|O[ck]t(?:ober)?|Nov(?:ember)?|De[cz](?:ember)?)"
)
_ORDINAL = r"(?:st|nd|rd|th|\.)?"
_WRITTEN_DATES = (
    _Rule(
        "date",
        re.compile(
            rf"\b{_MONTH}\.?[ -]?\d{{1,2}}{_ORDINAL}(?:\s?[-–]\s?\d{{1,2}}{_ORDINAL})?(?:,? ?{_YEAR})?(?![\w/]|\.\d)"
        ),
    ),
    _Rule("date", re.compile(rf"\b\d{{1,2}}{_ORDINAL}[ -](?:of )?{_MONTH}\b\.?(?:[ ,-]{{1,2}}{_YEAR})?(?!\w)")),
    _Rule("date", re.compile(rf"\b{_MONTH}\.?,?[ -]{_YEAR}\b")),
    _Rule(
        "date",
        re.compile(
            rf"(?i:\b(?:in|since|until|during|last|next|early|late|mid))[ -](?P<it>(?!May\b|Mar\b){_MONTH})\b(?! \d)"
        ),
    ),
)

# ---------------------------------------------------------------------------------------------------------- addresses

_CAP = r"[A-ZÀ-ÖØ-Þ][\w'’.-]{0,40}"
# USPS Publication 28, appendix C1, and what other English-speaking countries add.
_STREET = (
    "(?:Alley|Annex|Arcade|Avenue|Ave|Bayou|Beach|Bend|Bluffs?|Bottom|Boulevard|Blvd|Branch|Bridge|Brooks?|Burgs?|"
    "Bypass|Camp|Canyon|Cape|Causeway|Centers?|Circles?|Cliffs?|Close|Club|Common|Corners?|Course|Courts?|Coves?|Creek|"
    "Crescent|Crest|Crossing|Crossroads?|Curve|Dale|Dam|Divide|Drives?|Dr|Estates?|Expressway|Extensions?|Falls?|Ferry|"
    "Fields?|Flats?|Fords?|Forest|Forges?|Forks?|Fort|Freeway|Gardens?|Gateway|Glens?|Greens?|Groves?|Harbors?|Haven|"
    "Heights|Highway|Hwy|Hills?|Hollow|Inlet|Islands?|Isle|Junctions?|Keys?|Knolls?|Lakes?|Land|Landing|Lane|Ln|Lights?|"
    "Loaf|Locks?|Lodge|Loop|Mall|Manors?|Meadows?|Mews|Mills?|Mission|Motorway|Mountains?|Mount|Neck|Orchard|Oval|"
    "Overpass|Parade|Parks?|Parkways?|Pkwy|Pass|Passage|Path|Pike|Pines?|Place|Pl|Plains?|Plaza|Points?|Ports?|Prairie|"
    "Radial|Ramp|Ranch|Rapids?|Rest|Ridges?|River|Roads?|Rd|Route|Row|Rue|Run|Shoals?|Shores?|Skyway|Springs?|Spurs?|"
    "Squares?|Sq|Station|Stravenue|Stream|Streets?|St|Summit|Terrace|Throughway|Trace|Track|Trafficway|Trail|Trailer|"
    "Tunnel|Turnpike|Underpass|Unions?|Valleys?|Via|Viaduct|Views?|Villages?|Ville|Vista|Walks?|Wall|Ways?|Wells?)"
)
_STATE = (
    "(?:A[AEKLPRSZ]|C[AOT]|D[CE]|F[LM]|G[AU]|HI|I[ADLN]|K[SY]|LA|M[ADEHINOPST]|N[CDEHJMVY]|O[HKR]|P[ARW]|RI|S[CD]|T[NX]|"
    "UT|V[AIT]|W[AIVY]|NSW|VIC|QLD|TAS|ACT|ON|QC|BC|AB|MB|SK|NS|NB|NL|PE|Alabama|Arizona|California|Colorado|Florida|"
    "Georgia|Illinois|Indiana|Maryland|Massachusetts|Michigan|Minnesota|Missouri|New York|North Carolina|Ohio|Oregon|"
    "Pennsylvania|Tennessee|Texas|Virginia|Washington|Wisconsin)"
)
_TOWN = rf"{_CAP}(?:[ -]{_CAP}){{0,3}}"
_UK = r"[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}"
_CANADA = r"[A-Z]\d[A-Z] ?\d[A-Z]\d"
_UNIT = r"(?:,?\s(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Room|#)\.?\s?\w{1,6})"
_TAIL = (
    rf"(?:[,\s]{{1,3}}{_TOWN},?\s{{1,2}}{_STATE},?\s{{1,2}}(?:\d{{4,5}}(?:-\d{{4}})?|{_CANADA})"
    rf"|[,\s]{{1,3}}(?:{_TOWN}[,\s]{{1,3}}){{0,2}}{_UK}|,\s{_TOWN}(?:,\s{_STATE})?(?:,?\s\d{{4,6}})?)"
)
_COUNTED = re.compile(
    r"\d+\s(?:Units?|Hours?|Days?|Weeks?|Months?|Years?|Minutes?|Views?|Point|Field|Step|Lead|Stage|Extra|Oral|Tablets?)\b"
)
_STREETS = (
    _Rule(
        "address",
        re.compile(
            rf"(?<![\w.])(?:(?:Flat|Studio|Unit)\s\w{{1,4}},?\s)?\d{{1,6}}[A-Za-z]?,?\s{{1,2}}(?:[NSEW]{{1,2}}\.?\s)?"
            rf"(?:{_CAP}\s){{1,4}}?{_STREET}\b\.?{_UNIT}?{_TAIL}?"
        ),
        lambda found: not _COUNTED.match(found[0]),
    ),
    _Rule(
        "address",
        re.compile(
            rf"\b(?:Flat|Studio|Apt|Apartment|Level|Unit)\s\d{{1,4}}\w?,?\s(?:\d{{1,5}}\s)?(?:{_CAP}\s){{1,3}}?"
            rf"{_STREET}\b{_TAIL}?"
        ),
    ),
    _Rule("address", re.compile(rf"\b{_TOWN},?\s(?!IM\b){_STATE},?\s(?:\d{{5}}(?:-\d{{4}})?|{_CANADA})(?!\w)")),
    _Rule("address", re.compile(rf"\b(?:{_TOWN}[,\s]{{1,3}})?{_UK}\b")),
    _Rule(
        "address",
        re.compile(
            r"(?i:\bP\.?\s?O\.? Box \d{1,6})|\b(?:PSC|Unit) \d{1,5},? Box \d{1,5}(?:[,\s]{1,3}[AFD]PO A[AEP] \d{5})?"
            r"|\bUSN?[SNV]{1,2} \w{1,30}[,\s]{1,3}FPO A[AEP] \d{5}"
        ),
    ),
    _Rule(
        "address",
        re.compile(
            r"(?<!\w)[A-ZÄÖÜ][\w.-]{1,60}?(?:\s?Straße|straße|strasse|str\.|weg|gasse|allee|platz|ring|ufer|damm|"
            r"chaussee|-(?:Weg|Gasse|Allee|Platz|Ring))"
            rf"\s\d{{1,4}}[a-z]?(?:[/-]\d{{1,4}})?(?:,?\s\d{{5}}\s{_TOWN})?(?!\w)"
        ),
    ),
    _Rule(
        "address",
        re.compile(
            rf"\b\d{{1,4}},?\s(?:bis,? |ter,? )?(?i:rue|avenue|boulevard|chemin|place|impasse)\s(?:d[eu]s? |de la |l')?"
            rf"{_CAP}(?:[ -]{_CAP}){{0,3}}(?:,?\s\d{{5}}\s{_TOWN})?"
        ),
    ),
)
_HOUSE = re.compile(
    r"[0-9](?:[A-Za-z]?,? (?:[A-Z][a-z'.]|rue|ave|bou|che|plac|imp|bis|ter)|[A-Z]? ?[0-9][A-Z]{2}|[0-9]{4})"
    r"|(?:[sS]traße|[sS]trasse|str\.|[wW]eg|[gG]asse|[aA]llee|[pP]latz|[rR]ing|[uU]fer|[dD]amm|chaussee) [0-9]"
)
_DWELLING = _cased(
    words("address lives living resides residing resident born grew moved native wohnhaft anschrift adresse")
)
_RESIDENCES = (
    _Rule(
        "address",
        re.compile(
            r"(?i:\b(?:address(?: is)?\s?:|(?:lives|living|resid(?:es|ing)) at|wohnhaft(?: in)?:?|anschrift:|adresse:))"
            rf"\s{{0,2}}(?P<it>(?:(?:\d[\w/-]{{0,12}}|{_CAP}|de|van|der|den|of|en|am|an|im|du|la|und)"
            r"(?:[,\s]{1,3}|(?=[.;(]|\Z))){2,14})"
        ),
    ),
    _Rule(
        "address",
        re.compile(
            r"(?i:\b(?:lives|living|resides|residing|resident|born|grew up|moved) (?:in|of|to|from)|\bnative of)\s"
            rf"(?P<it>{_TOWN})"
        ),
        lambda found: not known(found["it"].split()[0]),
    ),
)

# -------------------------------------------------------------------------------------------------------------- gates

_LETTERS = re.compile(r"[^\W\d_]+")
_DIGIT = re.compile(r"\d")
_CAPITAL = re.compile(r"[A-ZÀ-ÖØ-Þ]")
_TELLING = GIVEN | CUES | _LABELS | MONTHS | _DWELLING
