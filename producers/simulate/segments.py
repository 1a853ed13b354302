"""HL7 v2 segments as the simulated hospital's systems write them, each in its version, character set and clock.

Sources: HL7 2.3, 2.5.1 and 2.8, chapters 2 (control), 3 (ADT), 4 (orders), 7 (observations), 9 (documents) and
10 (scheduling); positions are named beside the fields that are easily miscounted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Protocol

from producers.simulate.medicine import Analyte, Condition, Study
from producers.simulate.people import Contact, Name, Person, Staff, ascii_only

_ESCAPES = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
# MSH-9.3 where it is not the event's own name (HL7 table 0354)
_STRUCTURES = {
    "A04": "ADT_A01", "A08": "ADT_A01", "A13": "ADT_A01", "A11": "ADT_A09", "A40": "ADT_A39", "S13": "SIU_S12",
    "S15": "SIU_S12",
}  # fmt: skip


def escape(text: str) -> str:
    """Text as field content (HL7 2.5.1, 2.7.1)."""
    return text.translate(_ESCAPES)


class Coded(Protocol):
    """Something with a code and its name."""

    @property
    def code(self) -> str: ...

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class System:
    """One sending application and its habits. `zone` None: times carry none and are UTC."""

    application: str  # MSH-3
    facility: str  # MSH-4
    version: str  # MSH-12
    charset: str  # MSH-18, empty for plain ASCII
    codec: str
    zone: timezone | None
    authority: bool = True  # says who gave a record number (PID-3.4)
    ssn: str = ""  # where it writes the social security number: "PID-3", "PID-19" or nowhere

    def time(self, at: datetime) -> str:
        if self.zone is None:
            return f"{at.astimezone(UTC):%Y%m%d%H%M%S}"
        return f"{at.astimezone(self.zone):%Y%m%d%H%M%S%z}"

    def text(self, text: str) -> str:
        return escape(self.spell(text))

    def spell(self, text: str) -> str:
        """The text as far as this system's character set goes."""
        return ascii_only(text) if self.codec == "ascii" else text

    def body(self, segments: Iterable[str]) -> bytes:
        """Every segment ends with CR, the last one too."""
        return "".join(f"{segment}\r" for segment in segments).encode(self.codec)


@cache
def systems(facility: str, sister: str) -> dict[tuple[bool, str], System]:
    """(Chinese?, role) -> system. The sister house writes Chinese; between them they speak every dialect we know of."""
    west, east = timezone(timedelta(hours=-5)), timezone(timedelta(hours=8))
    utf8, gb = ("UNICODE UTF-8", "utf-8"), ("GB18030", "gb18030")
    return {
        (False, "adt"): System("PATADMIN", facility, "2.5.1", *utf8, west, ssn="PID-3"),
        (False, "lab"): System("LABCORE", facility, "2.5.1", "8859/1", "latin-1", west),
        (False, "rad"): System("RADLINE", facility, "2.3", "", "ascii", None, authority=False),
        (False, "notes"): System("CHARTPAD", facility, "2.8", *utf8, west),
        (False, "vitals"): System("BEDSIDE", facility, "2.5.1", "", "ascii", None),
        (False, "slots"): System("SLOTBOOK", facility, "2.5.1", *utf8, west),
        (False, "orders"): System("ORDERSET", facility, "2.3", "", "ascii", None, ssn="PID-19"),
        (True, "adt"): System("PATADMIN", sister, "2.5.1", *gb, east),
        (True, "lab"): System("LABCORE", sister, "2.5.1", *utf8, east),
        (True, "rad"): System("RADLINE", sister, "2.3", "GB 18030-2000", "gb18030", None, authority=False),
        (True, "notes"): System("CHARTPAD", sister, "2.8", *utf8, east),
        (True, "vitals"): System("BEDSIDE", sister, "2.5.1", *utf8, east),
        (True, "slots"): System("SLOTBOOK", sister, "2.5.1", *gb, east),
        (True, "orders"): System("ORDERSET", sister, "2.3", *gb, east),
    }


def msh(system: System, kind: str, control: str, at: datetime, receiver: str) -> str:
    structure = "" if system.version == "2.3" else f"^{_STRUCTURES.get(kind[4:], kind.replace('^', '_'))}"
    return (
        f"MSH|^~\\&|{system.application}|{system.facility}|WARDSTREAM|{receiver}|{system.time(at)}||{kind}{structure}"
        f"|{control}|T|{system.version}" + (f"||||||{system.charset}" if system.charset else "")
    )


def evn(system: System, event: str, at: datetime, occurred: datetime | None = None) -> str:
    """EVN-6 names the time of the cancelled event in a cancellation; EVN-2 is always the message's own.

    EVN-1 was withdrawn in 2.7: later versions leave it empty.
    """
    return f"EVN|{event if system.version < '2.7' else ''}|{system.time(at)}" + (
        f"||||{system.time(occurred)}" if occurred else ""
    )


def pid(system: System, person: Person, account: str, died: datetime | None = None) -> str:
    ssn = person.ssn if system.ssn == "PID-19" else ""
    numbers = cx(system, person)
    if system.ssn == "PID-3":
        numbers += f"~{person.ssn}^^^SSA^SS"
    return (
        f"PID|1||{numbers}||{xpn(system, person.name)}||{person.born:%Y%m%d}|{person.sex}"
        f"|||{xad(system, person.contact)}||{xtn(system, person.contact)}|||||{account}^^^^AN"
        + (f"|{ssn}" if ssn or died else "")
        + (f"||||||||||{system.time(died)}|Y" if died else "")  # PID-29, PID-30
    )


def cx(system: System, person: Person) -> str:
    """The record number with its assigner, where the system says one (PID-3, MRG-1)."""
    return f"{person.mrn}^^^{system.facility if system.authority else ''}^MR"


def xpn(system: System, name: Name) -> str:
    """Both spellings of a Chinese name, told apart by the representation code (XPN-8: I ideographic, A alphabetic)."""
    if name.latin is None:
        return f"{system.text(name.family)}^{system.text(name.given)}^^^^^L"
    return f"{name.family}^{name.given}^^^^^L^I~{name.latin[0]}^{name.latin[1]}^^^^^L^A"


def xad(system: System, contact: Contact) -> str:
    return (
        f"{system.text(contact.street)}^^{system.text(contact.city)}^{contact.region}^{contact.postcode}"
        f"^{contact.country}^H"
    )


def xtn(system: System, contact: Contact) -> str:
    """XTN-1 holds the number until 2.7 withdrew it; from then on it stands in parts."""
    if system.version < "2.7":
        return f"{contact.phone()}^PRN^PH"
    return f"^PRN^PH^^{'86' if contact.country == 'CHN' else '1'}^{contact.area}^555{contact.line:04d}"


def xcn(system: System, staff: Staff) -> str:
    return f"{staff.number}^{system.text(staff.name.family)}^{system.text(staff.name.given)}^^^Dr^^^{system.facility}"


def nk1(system: System, person: Person) -> str:
    kin = person.kin
    return (
        f"NK1|1|{xpn(system, kin.name)}|{kin.code}^{kin.relation}^HL70063|{xad(system, kin.contact)}"
        f"|{xtn(system, kin.contact)}"
    )


def gt1(system: System, person: Person) -> str:
    kin = person.kin  # GT1-2 number, GT1-3 name, GT1-5 address, GT1-6 phone
    return f"GT1|1|{kin.account}|{xpn(system, kin.name)}||{xad(system, kin.contact)}|{xtn(system, kin.contact)}"


def mrg(system: System, prior: Person) -> str:
    return f"MRG|{cx(system, prior)}||||||{xpn(system, prior.name)}"  # MRG-1, MRG-7


def dg1(system: System, condition: Coded, at: datetime, kind: str, index: int = 1) -> str:
    return f"DG1|{index}||{condition.code}^{escape(condition.name)}^I10||{system.time(at)}|{kind}"  # DG1-6: A, W or F


def pv1(
    system: System,
    patient_class: str,
    location: str,
    prior: str,
    attending: Staff,
    service: str,
    number: str,
    admitted: datetime,
    discharged: datetime | None = None,
    *,
    kind: str = "",
    source: str = "",
    disposition: str = "",
) -> str:
    """`kind` is the admission type (PV1-4, table 0007): by default emergency or routine, as the class is."""
    kind = kind or {"E": "E", "I": "R"}.get(patient_class, "R")
    return (
        f"PV1|1|{patient_class}|{location}|{kind}||{prior}|{xcn(system, attending)}|||{service}"  # PV1-10
        f"||||{source}|||||{number}^^^{system.facility}^VN"  # PV1-14, PV1-19
        f"|||||||||||||||||{disposition}||||||||{system.time(admitted)}"  # PV1-36, PV1-44
        + (f"|{system.time(discharged)}" if discharged else "")
    )


def pv2(system: System, expected_discharge: datetime) -> str:
    return f"PV2|||||||||{system.time(expected_discharge)}"  # PV2-9


def orc(system: System, control: str, placer: str, filler: str, at: datetime, provider: Staff) -> str:
    timing = f"1^ONCE^^{system.time(at)}" if system.version == "2.3" else ""  # ORC-7, withdrawn later for TQ1
    return f"ORC|{control}|{placer}|{filler}||||{timing}||{system.time(at)}|||{xcn(system, provider)}"  # ORC-9, ORC-12


def obr(
    system: System,
    placer: str,
    filler: str,
    service: str,
    drawn: datetime,
    provider: Staff,
    section: str = "",
    reported: datetime | None = None,
    status: str = "",
) -> str:
    head = f"OBR|1|{placer}|{filler}|{service}|||{system.time(drawn)}|||||||||{xcn(system, provider)}"  # OBR-16
    return f"{head}||||||{system.time(reported)}||{section}|{status}" if reported else head  # OBR-22, 24, 25


def obx_number(system: System, index: int, analyte: Analyte, value: str, at: datetime, status: str) -> str:
    return (
        f"OBX|{index}|NM|{analyte.code}^{escape(analyte.name)}^LN||{value}|{escape(analyte.unit)}^^UCUM"
        f"|{analyte.range()}|{analyte.flag(value)}|||{status}|||{system.time(at)}"
    )


def obx_coded(system: System, index: int, code: str, value: str, at: datetime) -> str:
    return f"OBX|{index}|CWE|{code}||{value}||||||F|||{system.time(at)}"


def obx_text(system: System, index: int, kind: str, code: str, lines: Iterable[str], at: datetime) -> str:
    """Formatted text takes its lines in one value; plain text is one line an OBX, as the caller splits it."""
    value = "\\.br\\".join(map(system.text, lines))
    return f"OBX|{index}|{kind}|{code}||{value}||||||F|||{system.time(at)}"


def txa(system: System, document: str, kind: str, at: datetime, author: Staff) -> str:
    when, who = system.time(at), xcn(system, author)
    return f"TXA|1|{kind}|FT|{when}|{who}|{when}|||{who}|||{document}|||||AU"  # TXA-9, TXA-12, TXA-17


def sch(
    system: System,
    number: str,
    reason: str,
    status: str,
    condition: Condition,
    start: datetime,
    end: datetime,
    by: Staff,
) -> str:
    who, timing = xcn(system, by), f"^^30^{system.time(start)}^{system.time(end)}"
    return (
        f"SCH|{number}^{system.application}|{number}F^{system.application}||||{reason}|{escape(condition.complaint)}"
        f"|ROUTINE|30|min|{timing}|||||{who}||||{who}|||||{status}"  # SCH-16, 20, 25
    )


def resources(system: System, condition: Condition, start: datetime, room: str) -> tuple[str, ...]:
    service = f"{condition.unit}^{escape(condition.complaint)}^99SVC"
    return "RGS|1|A", f"AIS|1|A|{service}|{system.time(start)}", f"AIL|1|A|{room}|||{system.time(start)}"


def study_code(study: Study) -> str:
    return f"{study.code}^{escape(study.name)}^{study.system}"
