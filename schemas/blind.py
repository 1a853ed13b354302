"""A person's name and date of birth as one key for the blind index, levelled for spelling, order and script. Pure.

Names alone are few and their frequencies known, so their hashes would tell; with the date of birth they do not. One
name gives several keys, since people write it in several ways: all words; first and last; given names written as one.
"""

from __future__ import annotations

import re
import unicodedata

from anyascii import anyascii

_JOINED = re.compile(r"(?<=\w)['’\-‐‑](?=\w)")  # O'Brien is OBrien, Xiao-ming is Xiaoming
_WORD = re.compile(r"[a-z]+")
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]+")
_DOUBLE_SURNAMES = frozenset(
    ("欧阳", "歐陽", "司马", "司馬", "上官", "诸葛", "諸葛", "东方", "東方", "皇甫", "尉迟", "公孙", "慕容", "令狐")
)
# Two letters for one, as German and Scandinavian names are written without their dots and rings.
_DIGRAPHS = (("ae", "a"), ("oe", "o"), ("ue", "u"), ("aa", "a"), ("ss", "s"), ("ph", "f"), ("th", "t"))
_TITLES = frozenset(("mr", "mrs", "ms", "miss", "dr", "prof", "jr", "sr", "ii", "iii", "iv", "md"))
_DATE = re.compile(r"(?<!\d)(\d{4})[-./]?(\d{2})[-./]?(\d{2})(?!\d)")


def person_keys(name: str, birth_date: str) -> list[str]:
    """Keys of one name with a date of birth (YYYYMMDD or YYYY-MM-DD); none where the day is not known."""
    date = _DATE.match(birth_date.strip())
    words = _words(name)
    if date is None or not words:
        return []
    ways = {tuple(sorted(words))}
    if len(words) > 2:
        first, *rest = words
        *before, last = words
        ways |= {
            tuple(sorted((first, last))),
            tuple(sorted((first, "".join(rest)))),
            tuple(sorted((last, "".join(before)))),
        }
    return sorted(f"{' '.join(way)} {''.join(date.groups())}" for way in ways)


def split_person(said: str) -> tuple[str, str]:
    """What a person typed, as name and date; either is empty where it is not there."""
    found = _DATE.search(said)
    if found is None:
        return said.strip(" ,"), ""
    return (said[: found.start()] + said[found.end() :]).strip(" ,"), "-".join(found.groups())


def _words(name: str) -> list[str]:
    """Words of a name in Latin letters without marks, in the order written."""
    written = unicodedata.normalize("NFKC", name)
    written = _HAN.sub(lambda found: _spaced(found.group()), written)
    plain = _JOINED.sub("", anyascii(written).lower())
    words = [_levelled(word) for word in _WORD.findall(plain)]
    return [word for word in words if word not in _TITLES] or words


def _levelled(word: str) -> str:
    for two, one in _DIGRAPHS:
        word = word.replace(two, one)
    return re.sub(r"(.)\1", r"\1", word)  # Meier, Meyer and Maier stay different names; Allan and Alan do not


def _spaced(han: str) -> str:
    """A Chinese name as surname and given name in pinyin, so that 王小明 is Wang Xiaoming."""
    surname = 2 if han[:2] in _DOUBLE_SURNAMES and len(han) > 2 else 1
    return f" {anyascii(han[:surname])} {anyascii(han[surname:])} "
