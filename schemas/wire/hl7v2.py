"""HL7 v2 in its ER7 encoding (standard, chapter 2): bytes to segments, fields and values, lazily; and the answer back.

A message is decoded once and cut into lines once; a segment is split when it is asked for, a value unescaped when it
is read. Bytes come first: trail bytes of GB 18030, Big5, Shift-JIS and ISO 2022 may look like `|`, `^`, `~` or `\\`,
so nothing is split before it is decoded by MSH-18. What cannot be read is refused by reason; nothing is replaced.

    text -> Message -> Segment.value(field, component, subcomponent), all counted from 1 as the standard counts
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from infra.errors import BadMessage

MAX_SEGMENTS = 20_000
MAX_FIELDS = 1_000  # in a segment
MAX_PARTS = 100_000  # repetitions of a field, components of a repetition: a long waveform (NA) has tens of thousands
NULL = '""'  # the sender deletes the value; an absent value leaves it as it is (2.5.3)

VERSIONS = frozenset(  # table 0104
    ("2.0", "2.0D", "2.1", "2.2", "2.3", "2.3.1", "2.3.2", "2.4", "2.5", "2.5.1", "2.6")
    + ("2.7", "2.7.1", "2.8", "2.8.1", "2.8.2", "2.9", "2.9.1")
)
PROCESSING_IDS = frozenset("DPTN")  # table 0103

# ---------------------------------------------------------------------------------------------- reasons and answers

# Why a message is refused: acknowledgement code (table 0008) and error code (table 0357). AE: the sender must mend it.
# AR: MSH-9, 11 or 12 is not ours to process (2.9.2), or it is we who cannot take it now.
REFUSALS: dict[str, tuple[str, str]] = {
    "no_msh": ("AE", "100"),
    "truncated_frame": ("AE", "100"),
    "no_frame": ("AE", "100"),
    "bad_separators": ("AE", "102"),
    "bad_charset": ("AE", "103"),
    "binary_noise": ("AE", "102"),
    "bad_segment": ("AE", "100"),
    "too_large": ("AR", "207"),
    "no_control_id": ("AR", "101"),
    "bad_message_type": ("AR", "200"),
    "bad_processing_id": ("AR", "202"),
    "bad_version": ("AR", "203"),
    "bad_date": ("AE", "102"),
    "missing_segment": ("AE", "100"),
    "missing_field": ("AE", "101"),
    "repeated_segment": ("AE", "100"),
    "erased": ("AE", "204"),  # unknown key identifier: nothing of it was kept, and it must not come again
}
_OTHER = ("AR", "207")  # a reason that is not the message's: resend it unchanged later

# ----------------------------------------------------------------------------------------------------- character sets

# Table 0211 and the spellings met in the field, by letters and digits alone. A superset codec where senders use the
# larger set under the smaller one's name (cp949 for KS X 1001, cp932 for JIS X 0201).
_CODECS = {
    **{f"{prefix}8859{part}": f"iso8859-{part}" for part in range(1, 17) if part != 12 for prefix in ("", "ISO")},
    **dict.fromkeys(("ASCII", "USASCII", "ISOIR6"), "ascii"),
    **dict.fromkeys(("UNICODE", "UNICODEUTF8", "UTF8"), "utf-8"),
    **dict.fromkeys(("UNICODEUTF16", "UTF16"), "utf-16"),
    **dict.fromkeys(("UNICODEUTF32", "UTF32"), "utf-32"),
    **dict.fromkeys(("GB180302000", "GB18030", "GBK", "GB2312"), "gb18030"),
    **dict.fromkeys(("BIG5", "CP950"), "cp950"),
    **dict.fromkeys(("KSX1001", "KSC5601", "ISOIR149", "EUCKR", "CP949"), "cp949"),
    **dict.fromkeys(("ISOIR13", "ISOIR14", "SHIFTJIS", "CP932"), "cp932"),
    **dict.fromkeys(("ISOIR87", "ISOIR159", "ISO2022JP"), "iso2022_jp_ext"),
    "EUCJP": "euc_jp",
    **{f"{prefix}125{digit}": f"cp125{digit}" for digit in range(9) for prefix in ("WINDOWS", "CP")},
}
_SHIFTED = {"cp932": "iso2022_jp_ext", "cp949": "iso2022_kr"}  # the same sets, switched by ESC (ISO 2022)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"M\0S\0H\0", "utf-16-le"),
    (b"\0M\0S\0H", "utf-16-be"),
    (b"M\0\0\0S\0\0\0", "utf-32-le"),
    (b"\0\0\0M\0\0\0S", "utf-32-be"),
)
_END_OF_LINE = re.compile(r"[\r\n]")
_BLANKS = b" \t\r\n"
_CONTROLS = bytes(set(range(32)) - set(b"\t\r\n"))
_CONTROLS_BUT_ESC = _CONTROLS.replace(b"\x1b", b"")
_PLAIN_HEADER = re.compile(rb"MSH([!-~])(?=[!-~]*\1)[ -~]*(?=\r)")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


@lru_cache(256)
def codec_of(name: str) -> str:
    """Python's codec for a name out of MSH-18 or a peer's profile. Raises BadMessage for an unknown one."""
    plain = re.sub(r"[^A-Z0-9]", "", name.upper())
    if plain not in _CODECS:
        raise BadMessage("bad_charset", "MSH-18")
    return _CODECS[plain]


def _marked(raw: bytes) -> str:
    """Codec that the first bytes themselves give away; empty for none."""
    for mark, codec in _MARKS:
        if raw.startswith(mark):
            return codec
    return ""


def _declared(raw: bytes) -> str:
    """MSH-18, found before anything is decoded; empty where it is."""
    ends = [at for at in (raw.find(b"\r"), raw.find(b"\n", 0, 4096)) if at >= 0]
    header = raw[: min(ends)] if ends else raw
    fields = header.split(raw[3:4], MAX_FIELDS)
    if len(fields) < 18:
        return ""
    if header.isascii():
        return fields[17].decode()
    # A trail byte that looks like the separator pushes MSH-18 to the right: the first set that we know is it.
    # `Message.read` looks again once the text is decoded.
    for field in fields[17:]:
        name = field.decode("ascii", "ignore")
        if re.sub(r"[^A-Z0-9]", "", name.split(chr(raw[5]))[0].upper()) in _CODECS:
            return name
    return fields[17].decode("ascii", "ignore")


def _codec(raw: bytes, charset: str | None) -> str:
    marked = _marked(raw)
    if marked:
        return marked
    if charset:
        return codec_of(charset)
    if len(raw) < 8:  # shorter than MSH-1 and MSH-2: no header to look into
        return "utf-8"
    names = [name for name in _declared(raw).split(chr(raw[5])) if name.strip()]
    if not names:  # ASCII by default; many send UTF-8 without saying so, and what decodes strictly is hardly else
        return "utf-8"
    found = [codec_of(name) for name in names]
    if len(found) > 1 and "iso2022_jp_ext" in found:  # ~ISO IR87: the alternatives are switched to by ESC
        return "iso2022_jp_ext"
    return _SHIFTED.get(found[0], found[0]) if b"\x1b" in raw else found[0]


def _decode(raw: bytes, codec: str) -> str:
    wide = codec.startswith(("utf-16", "utf-32"))
    if not wide:
        noise = _CONTROLS_BUT_ESC if codec.startswith("iso2022") else _CONTROLS
        if len(raw.translate(None, noise)) != len(raw):
            raise BadMessage("binary_noise")
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError:
        raise BadMessage("bad_charset", "MSH-18") from None
    if wide and _CONTROL_IN_TEXT.search(text):
        raise BadMessage("binary_noise")
    return text


# -------------------------------------------------------------------------------------------- separators and escapes


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """MSH-1, the characters of MSH-2, and the codec of `\\X..\\` escapes. A missing character is empty.

    Compared by identity, so that it is a cheap key of caches: `_dialect` gives equal messages the same one.
    """

    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str
    truncation: str
    codec: str = "utf-8"

    def unescape(self, text: str) -> str:
        """The value behind a text. Formatting becomes line ends or nothing; an unknown escape stays as it stands."""
        if not self.escape or self.escape not in text:
            return text
        return _escapes(self.escape).sub(_Unescape(self), text)

    def quote(self, value: str) -> str:
        """The opposite: `unescape(quote(value)) == value` for every value that the codec can carry."""
        letters = _letters(self)
        return "".join(
            f"{self.escape}{letters[char]}{self.escape}"
            if char in letters
            else f"{self.escape}X{ord(char):02X}{self.escape}"
            if char < " "
            else char
            for char in value
        )


@lru_cache(64)
def _letters(dialect: Dialect) -> dict[str, str]:
    marks = (dialect.field, dialect.component, dialect.repetition, dialect.escape, dialect.subcomponent)
    return {mark: letter for mark, letter in zip((*marks, dialect.truncation), "FSRETP", strict=True) if mark}


@lru_cache(64)
def _escapes(escape: str) -> re.Pattern[str]:
    mark = re.escape(escape)
    return re.compile(f"{mark}([^{mark}]*){mark}")


_FORMAT = re.compile(r"\.(br|sp|sk|fi|nf|in|ti|ce)\s*([+-]?\d{0,4})")
_HEX = re.compile(r"X((?:[0-9A-Fa-f]{2})+)")
_SWITCH = re.compile(r"C[0-9A-Fa-f]{4}|M[0-9A-Fa-f]{4}(?:[0-9A-Fa-f]{2})?")
_WIDEST = 80  # lines or blanks that one `.sp` or `.sk` may ask for


class _Unescape:
    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def __call__(self, found: re.Match[str]) -> str:
        dialect, code = self._dialect, found[1]
        match code:
            case "F":
                return dialect.field
            case "S":
                return dialect.component
            case "R":
                return dialect.repetition
            case "E":
                return dialect.escape
            case "T" if dialect.subcomponent:
                return dialect.subcomponent
            case "P" if dialect.truncation:
                return dialect.truncation
            case "H" | "N":  # highlighting on, off
                return ""
        if form := _FORMAT.fullmatch(code):
            count = min(int(form[2]), _WIDEST) if form[2].lstrip("+").isdigit() else 1
            match form[1]:
                case "br" | "ce":
                    return "\n"
                case "sp":
                    return "\n" * count
                case "sk":
                    return " " * count
            return ""
        if hexed := _HEX.fullmatch(code):
            try:
                return bytes.fromhex(hexed[1]).decode(dialect.codec)
            except UnicodeDecodeError:
                return found[0]
        return "" if _SWITCH.fullmatch(code) else found[0]


@lru_cache(256)
def _dialect(marks: str, codec: str) -> Dialect:
    """The dialect of a message that begins `MSH` + `marks`, MSH-1 and MSH-2. Raises BadMessage("bad_separators")."""
    field, others = marks[:1], marks[1:]
    if (
        not 3 <= len(others) <= 5
        or len(set(marks)) != len(marks)
        or any(mark.isalnum() or mark.isspace() or not mark.isprintable() or ord(mark) > 126 for mark in marks)
    ):
        raise BadMessage("bad_separators", "MSH-2" if field else "MSH-1")
    component, repetition, escape, subcomponent, truncation = [*others, "", ""][:5]
    return Dialect(field, component, repetition, escape, subcomponent, truncation, codec)


# ------------------------------------------------------------------------------------------------ messages, segments


class Segment:
    """One segment. `fields[n]` is field n as it stands on the wire; for MSH too, whose MSH-1 is the separator."""

    __slots__ = ("dialect", "fields", "name")

    def __init__(self, line: str, dialect: Dialect) -> None:
        self.dialect = dialect
        self.name = name = line[:3]
        self.fields = fields = line.split(dialect.field, MAX_FIELDS)
        if len(fields) > MAX_FIELDS:
            raise BadMessage("too_large", name)
        if name == "MSH":
            fields.insert(1, dialect.field)

    def text(self, field: int) -> str:
        """The whole field, nothing split or unescaped; empty where absent."""
        return self.fields[field] if field < len(self.fields) else ""

    def value(self, field: int, component: int = 1, subcomponent: int = 1) -> str:
        """One value of the field's first repetition, unescaped, outer blanks off. Empty where absent or null."""
        fields = self.fields
        if field >= len(fields):
            return ""
        text = fields[field]
        if text.isalnum():  # no separator, escape or blank: most fields by far
            return text if component == 1 and subcomponent == 1 else ""
        if not text:
            return ""
        dialect = self.dialect
        if dialect.repetition in text:
            text = text[: text.index(dialect.repetition)]
        return pick(text, dialect, component, subcomponent)

    def null(self, field: int) -> bool:
        """Whether the sender deletes this field."""
        return field < len(self.fields) and self.fields[field] == NULL

    def repetitions(self, field: int) -> list[str]:
        """The field's repetitions that carry something, as they stand."""
        if field >= len(self.fields):
            return []
        text = self.fields[field]
        if self.dialect.repetition not in text:
            return [text] if text and text != NULL else []
        found = text.split(self.dialect.repetition, MAX_PARTS)
        if len(found) > MAX_PARTS:
            raise BadMessage("too_large", f"{self.name}-{field}")
        return [one for one in found if one and one != NULL]

    def components(self, repetition: str) -> list[str]:
        """The components of a repetition, each unescaped; subcomponents stay together as they stand."""
        dialect = self.dialect
        found = repetition.split(dialect.component, MAX_PARTS)
        if len(found) > MAX_PARTS:
            raise BadMessage("too_large", self.name)
        if dialect.escape and dialect.escape in repetition:
            return [dialect.unescape(one) for one in found]
        return found


def pick(repetition: str, dialect: Dialect, component: int = 1, subcomponent: int = 1) -> str:
    """One value out of a repetition, unescaped, outer blanks off. Empty where absent or null."""
    text = repetition
    if dialect.component in text:
        parts = text.split(dialect.component, component)
        if component > len(parts):
            return ""
        text = parts[component - 1]
    elif component != 1:
        return ""
    return _component_value(text, dialect, subcomponent)


def values(repetition: str, dialect: Dialect, count: int) -> list[str]:
    """The first `count` components, each as `pick` gives it: one split for many."""
    parts = repetition.split(dialect.component, count)[:count]
    found = [part if part.isalnum() else _component_value(part, dialect) for part in parts]
    return found + [""] * (count - len(found))


def _component_value(text: str, dialect: Dialect, subcomponent: int = 1) -> str:
    if dialect.subcomponent and dialect.subcomponent in text:
        parts = text.split(dialect.subcomponent, subcomponent)
        if subcomponent > len(parts):
            return ""
        text = parts[subcomponent - 1]
    elif subcomponent != 1:
        return ""
    if not text or text == NULL:
        return ""
    if dialect.escape and dialect.escape in text:
        text = dialect.unescape(text)
    return text.strip()


class Message:
    """A message, decoded and cut into lines. `joined` counts lines that were no segments of their own."""

    __slots__ = ("_segments", "codec", "dialect", "joined", "lines", "raw")

    def __init__(self, raw: bytes, codec: str, dialect: Dialect, lines: list[str], joined: int) -> None:
        self.raw, self.codec, self.dialect, self.lines, self.joined = raw, codec, dialect, lines, joined
        self._segments: list[Segment] | None = None

    @classmethod
    def read(cls, raw: bytes, charset: str | None = None) -> Message:
        """One message, no more. `charset`, a peer's, stands above MSH-18. Raises BadMessage."""
        if not raw.startswith(b"MSH"):
            raw = raw.lstrip(_BLANKS)
            if raw.startswith(b"\x0b"):  # `split_batch` takes whole frames off: this one never ended
                raise BadMessage("truncated_frame")
        if not raw.startswith(b"MSH") and not _marked(raw):
            raise BadMessage("no_msh")
        if len(raw) < 8:
            raise BadMessage("bad_separators", "MSH-2")
        codec = _codec(raw, charset)
        text = _decode(raw, codec).lstrip("\ufeff \t\r\n")
        if not text.startswith("MSH"):
            raise BadMessage("no_msh")
        stop = text.find(text[3], 4, 12) if len(text) > 4 else -1
        dialect = _dialect(text[3:stop] if stop > 0 else _END_OF_LINE.split(text[3:12])[0], codec)
        lines, joined = _lines(text, dialect.field)
        message = cls(raw, codec, dialect, lines, joined)
        if not charset and not raw.isascii() and not _marked(raw) and _declared(raw) != message.header().text(18):
            raise BadMessage("bad_charset", "MSH-18")
        return message

    def header(self) -> Segment:
        return Segment(self.lines[0], self.dialect)

    def segments(self) -> list[Segment]:
        if self._segments is None:
            self._segments = [Segment(line, self.dialect) for line in self.lines]
        return self._segments

    def all(self, name: str) -> list[Segment]:
        return [Segment(line, self.dialect) for line in self.lines if line.startswith(name)]

    def get(self, place: str) -> str:
        """The value at `PID-3.4.2`, in the first segment of that name; the first where a number is left out."""
        name, _, numbers = place.partition("-")
        found = next((line for line in self.lines if line.startswith(name)), None)
        field, component, subcomponent = [*(int(one) for one in numbers.split(".")), 1, 1][:3]
        return Segment(found, self.dialect).value(field, component, subcomponent) if found else ""


@lru_cache(64)
def _is_segment(field: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(f"[A-Z][A-Z0-9]{{2}}(?:{re.escape(field)}|$)").match


@lru_cache(64)
def _line_feed_before_segment(field: str) -> re.Pattern[str]:
    return re.compile(f"\n[ \t\n]*(?=[A-Z][A-Z0-9]{{2}}{re.escape(field)})")


def _lines(text: str, field: str) -> tuple[list[str], int]:
    """A line a segment, whatever ends them: CR, LF or CRLF.

    A line that is no segment is the rest of the one before it: somebody let a line end into a note. It is joined to
    it again, as a line feed, and counted, so that a flag can tell.
    """
    if "\n" in text:
        text = _line_feed_before_segment(field).sub("\r", text.replace("\r\n", "\r"))
    if text.count("\r") > 4 * MAX_SEGMENTS:
        raise BadMessage("too_large")
    is_segment = _is_segment(field)
    lines: list[str] = []
    rest: dict[int, list[str]] = {}
    repeated = False
    for line in text.split("\r"):
        if not is_segment(line):
            if not line or line.isspace():
                continue
            if not is_segment(stripped := line.lstrip(" \t\n")):
                if len(lines) == 1:
                    raise BadMessage("bad_segment", "MSH")
                rest.setdefault(len(lines) - 1, []).append(line)
                continue
            line = stripped
        if line.startswith("MSH") and lines:
            repeated = True
        lines.append(line)
    if repeated:
        raise BadMessage("repeated_segment", "MSH")
    if len(lines) > MAX_SEGMENTS:
        raise BadMessage("too_large")
    for at, more in rest.items():
        lines[at] = "\n".join((lines[at], *more))
    if "\n" in text:
        lines = [line.rstrip("\n") for line in lines]
    return lines, sum(len(more) for more in rest.values())


# ------------------------------------------------------------------------------------------------------------ batches

_FRAME = re.compile(rb"[ \t\r\n]*\x0b(.*?)\x1c[\r\n]+", re.DOTALL)
_NEXT = re.compile(rb"(?:^|(?<=[\r\n]))[ \t]*MSH(?=[^A-Za-z0-9\s])")
_ENVELOPE_AT_START = re.compile(rb"\s*(?:[FB]HS[^A-Za-z0-9\s][^\r\n]*(?:[\r\n]+|$)\s*)*")
_ENVELOPE_AT_END = re.compile(rb"[\r\n]+(?:[FB](?:TS|HS)(?:[^A-Za-z0-9\s][^\r\n]*)?[\r\n]*)+$")


def split_batch(raw: bytes) -> Iterator[bytes]:
    """The messages of a file: MLLP frames or bare, one or many, in FHS/BHS/BTS/FTS envelopes (2.10.3) or not.

    Always at least one item: what holds no message comes out whole, so that its refusal is counted. A frame that
    never ends keeps its 0x0B; `Message.read` says so.
    """
    if raw.lstrip(_BLANKS).startswith(b"\x0b"):
        at = 0
        while frame := _FRAME.match(raw, at):
            yield from _split_bare(frame[1])
            at = frame.end()
        rest = raw[at:].strip(_BLANKS)
        if rest.startswith(b"\x0b") and rest.endswith(b"\x1c"):  # the file's own end stands for the last CR
            yield from _split_bare(rest[1:-1])
        elif rest:
            yield rest
        return
    yield from _split_bare(raw)


def _split_bare(raw: bytes) -> Iterator[bytes]:
    if raw.startswith(codecs.BOM_UTF8):
        raw = raw[len(codecs.BOM_UTF8) :]
    if _marked(raw):  # UTF-16, UTF-32: one message a file
        yield raw
        return
    if raw.startswith(b"MSH") and raw.count(b"MSH") == 1:
        starts = [0]
    else:
        starts = [found.start() for found in _NEXT.finditer(raw)]
    if not starts:
        yield raw
        return
    if before := raw[: starts[0]][_match_end(_ENVELOPE_AT_START, raw[: starts[0]]) :].strip(_BLANKS):
        yield before
    for start, stop in zip(starts, [*starts[1:], len(raw)], strict=True):
        message = raw[start:stop].strip(b" \t")
        if b"TS" in message or b"HS" in message:
            message = _ENVELOPE_AT_END.sub(b"\r", message)
        yield message


def _match_end(pattern: re.Pattern[bytes], raw: bytes) -> int:
    found = pattern.match(raw)
    return found.end() if found else 0


# -------------------------------------------------------------------------------------------------------------- times

# DTM, 2.A.22: YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ]
_DTM = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?)?)?)?(?:([+-])(\d\d)(\d\d))?",
    re.ASCII,
)


def parse_ts(text: str, zone: str, place: str = "") -> datetime:
    """A TS or DTM of any precision as an instant in UTC; what is left out counts from its beginning.

    `zone` is the IANA zone of a time that carries no offset. Raises BadMessage("bad_date", place).
    """
    try:
        return _instant(text, zone)
    except (ValueError, OverflowError):
        raise BadMessage("bad_date", place) from None


@lru_cache(8192)
def _instant(text: str, zone: str) -> datetime:
    found = _DTM.fullmatch(text)
    if found is None:
        raise ValueError
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    at = datetime(
        int(year),
        int(month or 1),
        int(day or 1),
        int(hour or 0),
        int(minute or 0),
        int(second or 0),
        int(f"{fraction:<06}") if fraction else 0,
        tzinfo=UTC,
    )
    if not sign:
        return at.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    if int(hours) > 14 or int(minutes) > 59:
        raise ValueError
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return at - offset if sign == "+" else at + offset


# ------------------------------------------------------------------------------------------------- control and answers


@dataclass(frozen=True, slots=True)
class Control:
    """The header as decisions need it; HD fields by their namespace, else their universal id."""

    sending_application: str  # MSH-3
    sending_facility: str  # MSH-4
    receiving_application: str  # MSH-5
    receiving_facility: str  # MSH-6
    sent_at: str  # MSH-7, not parsed
    message_type: str  # MSH-9.1
    trigger: str  # MSH-9.2
    structure: str  # MSH-9.3
    control_id: str  # MSH-10
    processing_id: str  # MSH-11.1
    version: str  # MSH-12.1
    accept_ack: str  # MSH-15
    application_ack: str  # MSH-16


_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})(?:-(\d+)(?:\.(\d+))?)?")
_TYPE = re.compile(r"[A-Z][A-Z0-9]{2}")
_STRUCTURE = re.compile(r"[A-Z0-9_]{0,20}")


def control(message: Message) -> Control:
    """The checked header. Raises BadMessage where MSH-9, 10, 11 or 12 is nothing that a receiver could process."""
    msh = message.header()
    value = msh.value
    message_type, trigger, structure = value(9), value(9, 2), value(9, 3)
    if (
        not _TYPE.fullmatch(message_type)
        or (trigger and not _TYPE.fullmatch(trigger))
        or not _STRUCTURE.fullmatch(structure)
    ):
        raise BadMessage("bad_message_type", "MSH-9")
    control_id = value(10)
    if not control_id:
        raise BadMessage("no_control_id", "MSH-10")
    processing_id, version = value(11), value(12)
    if processing_id and processing_id not in PROCESSING_IDS:
        raise BadMessage("bad_processing_id", "MSH-11")
    if version and version not in VERSIONS:
        raise BadMessage("bad_version", "MSH-12")
    return Control(
        value(3) or value(3, 2),
        value(4) or value(4, 2),
        value(5) or value(5, 2),
        value(6) or value(6, 2),
        value(7),
        message_type,
        trigger,
        structure,
        control_id,
        processing_id,
        version,
        value(15),
        value(16),
    )


def conditions(raw: bytes, code: str) -> list[str]:
    """The codes that a message wants to be answered with, given AA, AE or AR as the outcome (2.9.3).

    Any value in MSH-15 or MSH-16 (table 0155) means the enhanced mode: an accept acknowledgement (CA, CE, CR), an
    application acknowledgement, both or none.
    """
    _, marks, fields = _made_out(raw, None)
    accept, application = (
        fields[number].split(marks[1])[0].strip() if number < len(fields) else "" for number in (14, 15)
    )
    if not accept and not application:
        return [code]
    wanted = {"AL"} | ({"SU"} if code == "AA" else {"ER"})
    return [f"C{code[1]}"] * (accept in wanted) + [code] * (application in wanted)


def message_type(raw: bytes) -> str:
    """MSH-9 as TYPE^TRIGGER, for people; empty where it cannot be made out."""
    _, marks, fields = _made_out(raw, None)
    parts = fields[8].split(marks[1])[:2] if len(fields) > 8 else []
    return "^".join(parts) if all(_TYPE.fullmatch(part) for part in parts) else ""


def refusal(reason: str) -> tuple[str, str]:
    """Acknowledgement code (AE or AR) and error code of table 0357 for a reason."""
    return REFUSALS.get(reason, _OTHER)


def acknowledge(
    raw: bytes,
    code: str,
    control_id: str,
    at: datetime,
    problem: BadMessage | None = None,
    charset: str | None = None,
) -> bytes:
    """The answer to a message, in its own separators and character set; a CR after every segment.

    `code` is of table 0008: AA, AE, AR, or CA, CE, CR. `control_id` becomes MSH-10. Of a message that cannot be read
    it echoes whatever of the header can be made out. `at` is the time of the answer.
    """
    codec, marks, fields = _made_out(raw, charset)
    field, component = marks[0], marks[1]

    def wire(number: int) -> str:
        return fields[number - 1] if number <= len(fields) else ""

    first = wire(9).split(marks[2])[0].split(component)
    trigger = first[1] if len(first) > 1 and _TYPE.fullmatch(first[1]) else ""
    version = wire(12).split(component)[0]
    if version not in VERSIONS:
        version = "2.5"
    kind = component.join(("ACK", trigger, "ACK")) if trigger else "ACK"
    processing = wire(11) if wire(11)[:1] in PROCESSING_IDS else "P"
    stamp = at.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
    msh = ["MSH", marks[1:], wire(5), wire(6), wire(3), wire(4), stamp, "", kind, control_id, processing, version]
    if wire(18):
        msh += [""] * 5 + [wire(18)]
    modern = _numbers(version) >= (2, 5)
    msa = ["MSA", code, wire(10)]
    segments = [msh, msa]
    if problem is not None:
        text = f"{problem.reason} {problem.where}".strip()
        error = refusal(problem.reason)[1]
        location = _location(problem.where)
        if modern:
            coded = component.join((error, "", "HL70357"))
            segments.append(["ERR", "", component.join(location), coded, "E", problem.reason, "", "", text])
        else:
            msa.append(text)
            coded = (marks[4] if len(marks) > 4 else " ").join((error, text, "HL70357"))
            segments.append(["ERR", component.join(([*location, "", "", ""][:3]) + [coded])])
    answer = "".join(field.join(segment) + "\r" for segment in segments)
    try:
        return answer.encode(codec)
    except UnicodeEncodeError:  # only where the header was not ours to decode
        return answer.encode("utf-8")


def _made_out(raw: bytes, charset: str | None) -> tuple[str, str, list[str]]:
    """Codec, MSH-1 and MSH-2, and the header's fields as they stand, of a message however broken."""
    raw = raw.lstrip(b"\x0b" + _BLANKS)
    if (plain := _PLAIN_HEADER.match(raw)) is not None:  # nearly all: no character set can read it otherwise
        line = plain[0].decode()
        marks = line[3 : line.find(line[3], 4)]
        with contextlib.suppress(BadMessage):
            _dialect(marks, "ascii")
            return "ascii", marks, ["MSH", *line[3:].split(marks[0], 30)[1:]]
    nothing = ("ascii", "|^~\\&", ["MSH"])
    if not raw.startswith(b"MSH") and not _marked(raw):
        return nothing
    try:
        codec = _codec(raw, charset)
        text = raw[:65536].decode(codec, "ignore")
    except (BadMessage, IndexError):
        codec, text = "latin-1", raw[:65536].decode("latin-1")  # byte for byte, and back again
    else:
        if raw[:65536].decode(codec, "replace").split("\r")[0] != text.split("\r")[0]:
            codec, text = "latin-1", raw[:65536].decode("latin-1")
    line = _END_OF_LINE.split(text.lstrip("\ufeff \t\r\n"), maxsplit=1)[0]
    line = _CONTROL_IN_TEXT.sub("", line)
    try:
        marks = line[3 : line.index(line[3], 4)]
        _dialect(marks, codec)
    except (BadMessage, IndexError, ValueError):
        return nothing
    return codec, marks, ["MSH", *line[3:].split(marks[0], 30)[1:]]


def _location(where: str) -> list[str]:
    """PID-3.1 as the components of ERL (2.A.28): segment, which of them, field, which of it, component."""
    found = _PLACE.fullmatch(where)
    if found is None:
        return []
    segment, field, component = found.groups()
    return [segment, "1", *([field] if field else []), *(["1", component] if component else [])]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(one) for one in re.findall(r"\d+", version))
