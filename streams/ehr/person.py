"""Persons in HL7 v2 messages: who they are, how their names and addresses read, and which words give them away."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

from schemas.ehr import Event
from schemas.peers import Peer
from schemas.record import Identifier, StaffMember, Subject
from schemas.wire.hl7v2 import Control, Dialect, Message, Segment, pick, values

# Triggers (table 0003) whose MRG names the same person under an older number. The moves (A43, A44, A45) and the merges
# of accounts and visits (A35, A41, A42) carry MRG too, and join no persons.
MERGES = frozenset({"A18", "A30", "A34", "A36", "A39", "A40", "A46", "A47"})

_HOUSE = re.compile(r"^\d+\w?\b|\b\d+\w?$")  # the number of a house, before or after its street
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_TITLES = ("先生", "女士", "小姐", "氏", "さん", "様", "씨")
_NOBODY = frozenset({"UNKNOWN", "UNK", "NONE", "NULL", "NA", "NOTAPPLICABLE"})
_WORDS = re.compile(r"[^\W\d_]+")


# ------------------------------------------------------------------------------------------------------------ identity


def subjects(message: Message, header: Control, peer: Peer) -> tuple[tuple[Subject, ...], list[tuple[int, int]]]:
    """Every patient of a message in its order, and pairs (prior, survivor) of positions where it merges two.

    Each PID is one, each MRG with a number another. The same function serves the edge, which seals under their keys,
    and the agent, which reads.
    """
    found: list[Subject] = []
    merges: list[tuple[int, int]] = []
    patient: int | None = None
    for line in message.lines:
        match line[:3]:
            case "PID":
                patient = len(found)
                found.append(Subject(identifiers=_of_pid(Segment(line, message.dialect), header, peer)))
            case "MRG":
                like = found[patient].identifiers[:1] if patient is not None else ()
                numbers = _numbers(Segment(line, message.dialect), 1, header, peer, like)
                if not numbers:
                    continue
                if patient is not None and header.trigger in MERGES:
                    merges.append((len(found), patient))
                found.append(Subject(identifiers=numbers))
    return tuple(found), merges


def _of_pid(pid: Segment, header: Control, peer: Peer) -> tuple[Identifier, ...]:
    """PID-3; where it is empty what older versions and poorer senders have: PID-2, PID-4, PID-18, PID-19."""
    for field, kind in ((3, ""), (2, "PT"), (4, ""), (18, "AN"), (19, "SS")):
        if found := _numbers(pid, field, header, peer, (), kind):
            return found
    return ()


def _numbers(
    segment: Segment, field: int, header: Control, peer: Peer, like: Iterable[Identifier], kind: str = ""
) -> tuple[Identifier, ...]:
    """A field of CX, best type first. A bare number is taken to be of the kind of `like`, else the facility's own.

    An authority with a universal id as well (`HOSP&1.2.3&ISO`) gives the number a second time, behind all others: as
    FHIR names it (`urn:oid:1.2.3`).
    """
    found: list[Identifier] = []
    again: list[Identifier] = []
    dialect = segment.dialect
    for one in segment.repetitions(field):
        value = pick(one, dialect, 1)
        if not value or nobody(value):
            continue
        authority = pick(one, dialect, 4) or pick(one, dialect, 4, 2)
        given = pick(one, dialect, 5).upper()
        if not authority and not given and (model := next(iter(like), None)) is not None:
            authority, given = model.authority, model.type
        found.append(Identifier(authority=authority or header.sending_facility, type=given or kind, value=value))
        universal = pick(one, dialect, 4, 2)
        if universal and universal != authority:
            again.append(Identifier(authority=universal, type=given or kind, value=value))
    return tuple(
        dict.fromkeys(one for some in (found, again) for one in sorted(some, key=lambda one: peer.rank(one.type)))
    )


def nobody(value: str) -> bool:
    """Whether a number stands for none: 000-00-0000, 999999999, UNKNOWN. Taking it for one joins strangers."""
    plain = "".join(one for one in value if one.isalnum()).upper()
    return plain in _NOBODY or not plain or (len(plain) >= 3 and set(plain) in ({"0"}, {"9"}))


def staff(segment: Segment, field: int, role: str, facility: str) -> tuple[tuple[StaffMember, ...], tuple[str, ...]]:
    """A field of XCN, or of CN before version 2.3: its members of staff, and the words that give them away."""
    found = [_member(one, segment.dialect, role, facility) for one in segment.repetitions(field)]
    return tuple(member for member, _ in found if member), tuple(term for _, terms in found for term in terms)


@lru_cache(8192)  # the same few hundred people stand in nearly every message of a hospital
def _member(one: str, dialect: Dialect, role: str, facility: str) -> tuple[StaffMember | None, tuple[str, ...]]:
    number, family, given, middle, *_, authority = parts = values(one, dialect, 9)
    name = spoken(family, given, middle)
    if not number and not name:
        return None, ()
    authority = authority or pick(one, dialect, 9, 2) or facility
    kind = pick(one, dialect, 13).upper()
    identifier = Identifier(authority=authority, type=kind, value=number) if number else None
    terms = tuple(words(*parts[1:4])) + ((number,) if number else ())
    return StaffMember(role=role, identifier=identifier, name=name), terms


# ---------------------------------------------------------------------------------------- names, addresses and phones


def numbers(segment: Segment, *fields: int) -> Iterator[str]:
    """The bare numbers of fields of CX."""
    for field in fields:
        for one in segment.repetitions(field):
            if value := pick(one, segment.dialect, 1):
                yield value


def number_details(segment: Segment, *fields: int) -> Iterator[str]:
    """The same as value^type^authority."""
    for field in fields:
        for one in segment.repetitions(field):
            value, _, _, authority, kind = values(one, segment.dialect, 5)
            if value:
                yield f"{value}^{kind}^{authority}"


def names(segment: Segment, *fields: int) -> Iterator[str]:
    """Fields of XPN as people say them."""
    for field in fields:
        for one in segment.repetitions(field):
            if said := spoken(*values(one, segment.dialect, 4)):
                yield said


def addresses(segment: Segment, *fields: int) -> Iterator[str]:
    """Fields of XAD on one line."""
    for field in fields:
        for one in segment.repetitions(field):
            if written := ", ".join(part for part in values(one, segment.dialect, 6) if part):
                yield written


def phones(segment: Segment, *fields: int) -> Iterator[str]:
    """Fields of XTN: the written number, or the parts of it that version 2.7 wants."""
    for field in fields:
        for one in segment.repetitions(field):
            parts = values(one, segment.dialect, 12)
            number = parts[0] or " ".join(part for part in parts[4:7] if part) or parts[11]
            if number and "@" not in number:
                yield number


def mails(segment: Segment, *fields: int) -> Iterator[str]:
    for field in fields:
        for one in segment.repetitions(field):
            for position in (4, 1):
                if "@" in (mail := pick(one, segment.dialect, position)):
                    yield mail
                    break


def spoken(family: str, given: str = "", middle: str = "", suffix: str = "") -> str:
    if _HAN.search(family + given):
        return family + given
    return " ".join(part for part in (given, middle, family, suffix) if part)


# ------------------------------------------------------------------------------------------- words that give them away


def name_terms(segment: Segment, *fields: int, first: int = 1) -> Iterator[str]:
    """Words of names: family and given names, each alone. `first` is the component of the family name."""
    dialect = segment.dialect
    for field in fields:
        for one in segment.repetitions(field):
            yield from words(*values(one, dialect, first + 2)[first - 1 :])


def words(family: str, *given: str) -> Iterator[str]:
    if _HAN.search(family + "".join(given)):
        yield family + "".join(given)
        yield from (one for one in given if len(one) > 1)
        yield from (family + title for title in _TITLES if family)
        if len(family) > 1:
            yield family
        return
    for name in (family, *given):
        if len(name) > 1:
            yield name
            pieces = _WORDS.findall(unicodedata.normalize("NFKC", name))
            if len(pieces) > 1:  # Smith-Jones is called Smith; what is short (van, de, O') is no name alone
                yield from (piece for piece in pieces if len(piece) > 3)


_TITLE = re.compile(r"\A(?:(?:Dr|Prof|Mr|Mrs|Ms|Miss|Frau|Herr)\b\.?\s*)+")
_NAMED = re.compile(r"[^\W\d_][\w'’-]+")


def untitled(said: str) -> str:
    """A name as written, without its title."""
    return _TITLE.sub("", said)


def spoken_terms(said: str) -> Iterator[str]:
    """A name as written, without its title, and its words each alone but for the small ones between (van, de)."""
    plain = untitled(said)
    first, *others = [word for word in _NAMED.findall(plain) if len(word) > 3 or not word.islower()] or [""]
    yield plain
    yield from words(first, *others)


def known_terms(part: Event) -> Iterator[str]:
    """What gives a patient away by what one event tells: for texts that come later, and alone."""
    for said in (*part.name, *part.prior_names, part.mothers_maiden_name, *part.kin_names, *part.guarantor_names):
        yield from spoken_terms(said)
    for said in part.insured_names:
        yield from spoken_terms(said)
    for written in (*part.addresses, *part.kin_addresses, *part.guarantor_addresses, *part.insured_addresses):
        yield from place_words(*written.split(", "))
    for phone in (*part.phones, *part.kin_phones, *part.guarantor_phones):
        yield from phone_words(phone)
    yield from part.mails
    numbered = (*part.identifiers, *part.prior_identifiers, *part.mothers_identifiers, *part.guarantor_identifiers)
    for number in (*numbered, *part.insured_identifiers, part.account_number, part.ssn, part.drivers_license):
        if len(number) > 3 and any(one.isdigit() for one in number):
            yield number
    yield from date_terms(part.birth_date)


def address_terms(segment: Segment, *fields: int) -> Iterator[str]:
    """Street, its name alone, what designates the dwelling, town and post code; never state or country."""
    dialect = segment.dialect
    for field in fields:
        for one in segment.repetitions(field):
            places = ((1, 2), (2, 1), (3, 1), (5, 1))
            yield from place_words(pick(one, dialect), *(pick(one, dialect, *place) for place in places))


def place_words(street: str, *others: str) -> Iterator[str]:
    """A street with its house, its name alone, and what else tells where a dwelling is."""
    yield from (term for term in (street, *others) if len(term) > 2)
    if len(named := _HOUSE.sub("", street).strip(" ,")) > 4:  # "lives in Elm Road"
        yield named


def phone_terms(segment: Segment, *fields: int) -> Iterator[str]:
    """Numbers as written, without the country's code and without the area's: people write all of them."""
    for written in phones(segment, *fields):
        yield from phone_words(written)
    yield from mails(segment, *fields)


def phone_words(written: str) -> Iterator[str]:
    digits = "".join(one for one in written if one.isdigit())
    yield digits
    yield from (digits[-length:] for length in (10, 7) if len(digits) > length)


def date_terms(text: str) -> Iterator[str]:
    """A date as year-month-day, day-month-year and month-day-year, with whatever between."""
    year, month, day = text[:4], text[4:6], text[6:8]
    if len(day) == 2 and (year + month + day).isdigit():
        yield from (year + month + day, day + month + year, month + day + year)
