"""Signed lines that count: a log whose entries each carry the digest of the one before, and its heads elsewhere. Pure.

    entry  {"seq":7,"prev":"<64 hex>","event":{...},"signature":"<88 base64>"}
    head   {"seq":7,"sha256":"<64 hex>","at":"<RFC 3339>","signature":"<88 base64>"}

A digest is SHA-256 over a line without its newline; `prev` of entry 1 is GENESIS. A signature is Ed25519 (RFC 8032)
over a prefix that says what it is for, then the line's own bytes before `,"signature":`. The bytes as they stand, so
that nobody has to agree on how JSON is written. The chain shows what changed inside, the signature who wrote, and the
heads, kept on another disk, where the log once ended: a chain alone cannot show that its end was cut off.

A line that a crash broke off begins as an entry and has no end. It stays, and takes no number: the next entry gets the
number that it would have had. So an entry that was removed leaves a gap, whatever stands in its place.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ENTRY, HEAD = (
    b"wardstream audit entry 1\n",
    b"wardstream audit head 1\n",
)  # signed first: what is signed, and its format
GENESIS = hashlib.sha256(b"wardstream audit genesis 1").hexdigest()
_LINE = re.compile(
    rb'(\{"seq":([1-9]\d{0,15}),"(?:prev|sha256)":"([0-9a-f]{64})",.+),"signature":"([A-Za-z0-9+/]{86}==)"\}'
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line whose signature holds."""

    seq: int
    link: str  # of an entry: digest of the entry before; of a head: digest of its entry
    digest: str  # its own


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to which entries, or to the heads of which, and on which line of the file it shows.

    `kind`: edited, removed, reordered, replayed, truncated, missing, rewritten (signed, yet not what was anchored or
    chained), forged (a line that was never ours), another_key. `line` is 0 where a line is not there any more.
    """

    place: str  # log or heads
    kind: str
    first: int
    last: int
    line: int = 0

    def __str__(self) -> str:
        of = f"{self.first} to {self.last}" if self.last > self.first else str(self.first)
        at = f" (line {self.line})" if self.line else ""
        return f"{self.kind}: {'entry' if self.place == 'log' else 'head'} {of}{at}"


@dataclass(slots=True)
class Verdict:
    """What a look at both files has found. The audit is whole where there are no faults."""

    entries: int = 0
    anchored: int = 0  # number of the last entry with a head
    head: str = ""  # its digest
    unanchored: list[int] = field(default_factory=list)  # a crash came between an entry and its head
    torn: list[int] = field(default_factory=list)  # lines of the log that a crash broke off
    torn_heads: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def entry(key: Ed25519PrivateKey, seq: int, prev: str, event: bytes) -> bytes:
    """A line of the log. `event` is JSON without newlines."""
    return _signed(key, ENTRY, b'{"seq":%d,"prev":"%b","event":%b' % (seq, prev.encode(), event))


def head(key: Ed25519PrivateKey, seq: int, digest: str, at: str) -> bytes:
    """A line of the heads: entry `seq` was the last one, and this its digest."""
    return _signed(key, HEAD, b'{"seq":%d,"sha256":"%b","at":"%b"' % (seq, digest.encode(), at.encode()))


def _signed(key: Ed25519PrivateKey, use: bytes, body: bytes) -> bytes:
    return b'%b,"signature":"%b"}\n' % (body, b64encode(key.sign(use + body)))


def read(raw: bytes, use: bytes, key: Ed25519PublicKey) -> Line | None:
    """A line, with or without its newline; None where it is not one that `key` has signed."""
    raw = raw.removesuffix(b"\n")
    found = _LINE.fullmatch(raw)
    if found is None:
        return None
    body, seq, link, written = found.groups()
    signature = b64decode(written)
    if b64encode(signature) != written:  # the last letter has four bits that decode to nothing
        return None
    try:
        key.verify(signature, use + body)
    except InvalidSignature:
        return None
    return Line(int(seq), link.decode(), digest(raw))


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw.removesuffix(b"\n")).hexdigest()


def verify(log: Iterable[bytes], heads: Iterable[bytes], key: Ed25519PublicKey) -> Verdict:
    """Judge a log by its heads. Needs no secret. One pass over each; holds under 1 KB an entry."""
    anchors, entries = _Walk("heads", HEAD, key), _Walk("log", ENTRY, key)
    anchors.take(heads)
    entries.take(log)
    entries.close(anchors.last)
    # The last entry may want its head: a crash came between. Who takes the last head away gains nothing by it.
    pending = entries.last == anchors.last + 1 and not anchors.altered
    anchors.close(anchors.last if pending else entries.last)
    faults = [*entries.faults, *_rewritten(entries.seen, anchors.seen), *anchors.faults]
    return Verdict(
        entries=len(entries.seen),
        anchored=anchors.last,
        head=anchors.seen[anchors.last].link if anchors.last else "",
        unanchored=[entries.last] if pending else [],
        torn=entries.torn,
        torn_heads=anchors.torn,
        faults=faults,
    )


class _Walk:
    """A walk through the lines of one file, which should count 1, 2, 3 ..."""

    def __init__(self, place: str, use: bytes, key: Ed25519PublicKey) -> None:
        self._place, self._use, self._key = place, use, key
        self.seen: dict[int, Line] = {}
        self.faults: list[Fault] = []
        self.torn: list[int] = []
        self._due = 1  # the number that the next line should have
        self._missing: set[int] = set()
        self._unread: list[int] = []  # lines behind the last good one that nobody has signed
        self._lines = 0

    @property
    def last(self) -> int:
        return max(self.seen, default=0)

    @property
    def altered(self) -> bool:
        """Whether the file ends in lines that were altered."""
        return bool(self._unread)

    def take(self, lines: Iterable[bytes]) -> None:
        for raw in lines:
            self._lines += 1
            line = read(raw, self._use, self._key)
            if line is not None:
                self._place_of(line)
            elif _torn(raw, self._due):
                self.torn.append(self._lines)
            else:
                self._unread.append(self._lines)

    def close(self, until: int) -> None:
        """No line follows; number `until` should be the last."""
        self._note("removed", self._missing)
        cut = self._gap(until + 1)
        self._note("truncated" if self._lines else "missing", cut)

    def _place_of(self, line: Line) -> None:
        if line.seq >= self._due:
            self._missing.update(self._gap(line.seq))
            self._due = line.seq + 1
            self.seen[line.seq] = line
        elif line.seq in self._missing:
            self._missing.remove(line.seq)
            self.seen[line.seq] = line
            self.faults.append(Fault(self._place, "reordered", line.seq, line.seq, self._lines))
        else:
            kind = "replayed" if self.seen.get(line.seq) == line else "rewritten"
            self.faults.append(Fault(self._place, kind, line.seq, line.seq, self._lines))

    def _gap(self, seq: int) -> list[int]:
        """Numbers due before `seq` that are not there. Where an altered line stands in for one, that one was edited."""
        due = range(self._due, seq)
        for number, at in zip(due, self._unread, strict=False):
            self.faults.append(Fault(self._place, "edited", number, number, at))
        for at in self._unread[len(due) :]:
            self.faults.append(Fault(self._place, "forged", self._due, self._due, at))
        left = list(due[len(self._unread) :])
        self._unread.clear()
        return left

    def _note(self, kind: str, numbers: Iterable[int]) -> None:
        self.faults += [Fault(self._place, kind, first, last) for first, last in _runs(numbers)]


def _torn(raw: bytes, due: int) -> bool:
    """Whether a line is the beginning of number `due`, broken off."""
    begins = b'{"seq":%d,' % due
    whole = raw.removesuffix(b"\n")
    return whole[: len(begins)] == begins[: len(whole)] and not whole.endswith(b'"}')


def _rewritten(entries: dict[int, Line], heads: dict[int, Line]) -> Iterator[Fault]:
    """Entries that hold and yet are not what was anchored, or do not follow what was: a second history."""
    for seq, line in entries.items():
        anchored = heads.get(seq)
        before = GENESIS if seq == 1 else None
        if seq - 1 in heads:
            before = heads[seq - 1].link
        elif seq - 1 in entries:
            before = entries[seq - 1].digest
        if (anchored and anchored.link != line.digest) or (before and before != line.link):
            yield Fault("log", "rewritten", seq, seq)


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of numbers that follow each other."""
    first = last = 0
    for number in sorted(numbers):
        if first and number > last + 1:
            yield first, last
            first = 0
        first, last = first or number, number
    if first:
        yield first, last
