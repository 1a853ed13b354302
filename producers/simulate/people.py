"""The people of the simulated hospital: names nobody bears, streets that are nowhere, numbers nobody has.

Telephone numbers end in 555-0100 to 555-0199 (kept for fiction), social security numbers begin with 9 and have a
middle pair below 50 (never issued, and no taxpayer number either), postal codes begin with 000.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from datetime import date, timedelta
from random import Random

_FAMILIES = (
    "Testerby", "Mockford", "Samplewick", "Fauxley", "Dummerton", "Pretendish", "Shamwell", "Fictonby", "Nullworth",
    "Placeholt", "Imaginov", "Seedling-Roe", "Simmerley", "O'Bogus", "Unrealis", "Phantomby", "Trialhurst", "Mimicson",
    "Fabelmann", "Invéntez", "Erfundén", "Mårkesen", "Nadaçal", "Proxyworth", "Stubbinsfield", "Randomsky", "Quasimer",
)  # fmt: skip
_WOMEN = (
    "Mara", "Elowen", "Priska", "Ottilie", "Zenaida", "Brunhild", "Célestine", "Ysolde", "Ulrika", "Perpetua",
    "Wilhelmina", "Ofelia", "Anneliese", "Rosamund", "Thessaly", "Inés",
)  # fmt: skip
_MEN = (
    "Anselm", "Barnaby", "Casimir", "Dagobert", "Evander", "Florian", "Gideon", "Hesperus", "Ignatius", "Jörg",
    "Leopold", "Montague", "Norbert", "Osric", "Quentin", "Thaddeus",
)  # fmt: skip
# 葉, 珅 and 誠 are traps: in GB18030 their second bytes are ~ | and \, so whoever splits bytes before decoding breaks;
# 䶮 takes the far end of the set.
_FAMILIES_ZH = (("样", "Yang"), ("例", "Li"), ("拟", "Ni"), ("仿", "Fang"), ("测", "Ce"), ("葉", "Ye"), ("虚", "Xu"))
_WOMEN_ZH = (("小样", "Xiaoyang"), ("拟雨", "Niyu"), ("例梅", "Limei"), ("仿兰", "Fanglan"), ("晓测", "Xiaoce"))
_MEN_ZH = (("试珅", "Shishen"), ("誠拟", "Chengni"), ("样龙", "Yanglong"), ("䶮例", "Yanli"), ("仿山", "Fangshan"))

_STREETS = (
    "Quillfeather Lane", "Nowhere & Elsewhere Street", "Mockingstone Row", "Paperboat Wharf", "Tinlantern Hill",
    "Vellum Crescent", "Gearwhistle Road", "Mirage Terrace", "Sandglass Close", "Inkwell Parade",
)  # fmt: skip
_CITIES = (("Mockhaven", "ZZ"), ("Port Fable", "ZZ"), ("Samplebury", "ZZ"), ("Nullminster", "ZY"))
_STREETS_ZH = ("虚构路", "样例街", "镜花巷", "水月大道", "测试弄")
_CITIES_ZH = (("拟城市", "虚省"), ("样港市", "虚省"))
_AREAS = ("201", "312", "415", "617", "808")
_AREAS_ZH = ("10", "21", "755")
_MOTHER, _FATHER = ("MTH", "Mother"), ("FTH", "Father")
_KIN = (("SPO", "Spouse"), ("SIB", "Sibling"), ("FND", "Friend"))


@dataclass(frozen=True, slots=True)
class Name:
    """Family and given name, with a Latin spelling where the name is Chinese."""

    family: str
    given: str
    latin: tuple[str, str] | None = None

    def spoken(self) -> str:
        return self.family + self.given if self.latin else f"{self.given} {self.family}"


@dataclass(frozen=True, slots=True)
class Contact:
    """Where somebody lives and is rung up."""

    street: str
    city: str
    region: str
    postcode: str
    country: str
    area: str
    line: int

    def phone(self) -> str:
        return f"({self.area})555-{self.line:04d}"


@dataclass(frozen=True, slots=True)
class Kin:
    """Next of kin, who may be the guarantor too."""

    name: Name
    contact: Contact
    code: str  # HL7 table 0063
    relation: str
    account: str  # GT1-2


@dataclass(frozen=True, slots=True)
class Person:
    """A patient. `key` tells patients apart inside one run and is no identifier of the hospital's."""

    key: str
    name: Name
    sex: str  # HL7 table 0001
    born: date
    contact: Contact
    mrn: str
    ssn: str
    kin: Kin
    chinese: bool


@dataclass(frozen=True, slots=True)
class Staff:
    """Somebody who treats patients."""

    number: str
    name: Name


def make_person(rng: Random, index: int, mrn: str, today: date, child: bool, chinese: bool) -> Person:
    age = rng.randint(1, 15) if child else min(98, max(18, round(rng.gauss(61, 19))))
    sex = rng.choice("FM")
    contact = _contact(rng, chinese)
    kin_sex = rng.choice("FM")
    parent = _MOTHER if kin_sex == "F" else _FATHER
    code, relation = parent if child else rng.choice((*_KIN, ("CHD", "Child") if age > 50 else parent))
    kin_name = _name(rng, kin_sex, chinese)
    return Person(
        key=f"p{index:06d}",
        name=_name(rng, sex, chinese),
        sex=sex,
        born=today - timedelta(days=age * 365 + rng.randint(0, 364)),
        contact=contact,
        mrn=mrn,
        ssn=f"9{rng.randint(0, 99):02d}-{rng.randint(10, 49)}-{rng.randint(1000, 9999)}",
        kin=Kin(
            name=kin_name,
            contact=contact if rng.random() < 0.5 else _contact(rng, chinese),
            code=code,
            relation=relation,
            account=f"G{rng.randint(100000, 999999)}",
        ),
        chinese=chinese,
    )


def misspelt(rng: Random, person: Person, mrn: str) -> Person:
    """The same person as a hurried desk registers him or her again: another number, two letters changed over."""
    family = person.name.family
    if person.name.latin is None:
        at = rng.randint(1, len(family) - 2)
        family = family[:at] + family[at + 1] + family[at] + family[at + 2 :]
    return replace(person, mrn=mrn, name=replace(person.name, family=family))


def make_staff(rng: Random, count: int, chinese: bool) -> tuple[Staff, ...]:
    return tuple(
        Staff(f"{'Y' if chinese else 'D'}{1001 + index}", _name(rng, rng.choice("FM"), chinese))
        for index in range(count)
    )


def ascii_only(text: str) -> str:
    """What an old system without accents makes of a name."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _name(rng: Random, sex: str, chinese: bool) -> Name:
    if chinese:
        family, family_latin = rng.choice(_FAMILIES_ZH)
        given, given_latin = rng.choice(_WOMEN_ZH if sex == "F" else _MEN_ZH)
        return Name(family, given, (family_latin, given_latin))
    return Name(rng.choice(_FAMILIES), rng.choice(_WOMEN if sex == "F" else _MEN))


def _contact(rng: Random, chinese: bool) -> Contact:
    city, region = rng.choice(_CITIES_ZH if chinese else _CITIES)
    number = rng.randint(1, 240)
    street = f"{rng.choice(_STREETS_ZH)}{number}号" if chinese else f"{number} {rng.choice(_STREETS)}"
    return Contact(
        street=street,
        city=city,
        region=region,
        postcode=f"000{rng.randint(0, 99):02d}" + ("0" if chinese else ""),
        country="CHN" if chinese else "USA",
        area=rng.choice(_AREAS_ZH if chinese else _AREAS),
        line=rng.randint(100, 199),
    )
