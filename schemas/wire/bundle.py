"""FHIR bundles of any size: entries to events, each with the resources it refers to.

A bundle is read twice as a stream. The first pass keeps what stands around the entries, and of the entries the few
types that others are read with (`CONTEXT`); the second gives one event an entry. So memory holds one entry of at most
the limit, and at most `MAX_CONTEXT` bytes of context, however long the bundle is.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson

from infra.errors import BadMessage
from schemas.wire.fhir import Focus, Resource, canonical, known, load, references, validate

# What other resources are read with: who it is about, where and by whom it was done, what was given.
CONTEXT = frozenset(
    ("Patient", "Encounter", "Location", "Organization", "Practitioner", "PractitionerRole", "Medication")
)
# What `subject` may point at in R4 beside those: of it the type alone, which says that it is no patient.
THINGS = frozenset(("Device", "Group", "HealthcareService", "Substance"))
MAX_CONTEXT = 256_000_000  # bytes
MAX_NESTING = 8  # of bundles in bundles
_FOLLOWED = ("Encounter", "PractitionerRole")  # context whose own references are context too: place, person
_LEFT_OUT = ("text", "photo")  # of context: large, and nothing is read of it
# Elements that name the patient, in the resources that have them.
SUBJECTS = ("subject", "patient", "for", "beneficiary", "individual")
_PARSED = 2_000

# Unrolled, so that nothing is tried twice; and no possessive group, which Python up to 3.11.4 gets wrong.
_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_RUN = re.compile(rb'[^][{}"]*(?:"%s"[^][{}"]*)*' % _STRING.pattern, re.DOTALL)
_ENTRY = re.compile(rb'(?<!\\)"entry"[ \t\r\n]*:[ \t\r\n]*\[\Z')
_BLANKS = b" \t\r\n"
_LITERAL = re.compile(
    r"(?:https?://\S+|(?:\S+/)?[A-Z][A-Za-z]+/[A-Za-z0-9.\-]{1,64}(?:/_history/[A-Za-z0-9.\-]{1,64})?)"
)
_HISTORY = re.compile(r"/_history/[^/]*\Z")
_KEPT_TYPE = re.compile(rb'"resourceType"\s*:\s*"(?:%s)"' % "|".join(sorted(CONTEXT | THINGS)).encode())
_RESOURCE = re.compile(rb'"resource"\s*:')

Open = Callable[[], Iterable[bytes]]


# ------------------------------------------------------------------------------------------------------------ the cut


class Cut:
    """Cuts a JSON document into the elements of its `entry`, as sent, without reading them.

    Iterating gives each element, or too_large in its place, and leaves in `shell` the document without them. It
    raises BadMessage where the document itself is no JSON object, ends early, or is too large without its entries.
    """

    def __init__(self, chunks: Iterable[bytes], limit: int) -> None:
        self._chunks, self._limit = chunks, limit
        self.shell = b""

    def __iter__(self) -> Iterator[bytes | BadMessage]:
        shell, gap, element = bytearray(), bytearray(), bytearray()
        rest = b""
        depth = count = 0
        listed = in_string = too_large = False
        for chunk in self._chunks:
            data = rest + chunk
            at = kept = 0
            while True:
                if in_string:
                    at = _end(_STRING, data, at)
                    if at >= len(data) or data[at] != 0x22:
                        break  # the rest is to come; a backslash waits for what it escapes
                    in_string = False
                    at += 1
                at = _end(_RUN, data, at)
                if at >= len(data):
                    break
                mark = data[at]
                if mark == 0x22:
                    in_string = True
                    at += 1
                    continue
                if mark in b"[{":
                    if listed and depth == 2:
                        gap += data[kept:at]
                        kept = at
                        if mark == 0x5B or bytes(gap).strip(_BLANKS) != (b"," if count else b""):
                            raise BadMessage("bad_json", "Bundle.entry")
                        gap.clear()
                    elif depth == 1 and mark == 0x5B and not listed:
                        shell += data[kept : at + 1]
                        kept = at + 1
                        listed, count = _ENTRY.search(shell[-64:]) is not None, 0
                    depth += 1
                else:
                    depth -= 1
                    if listed and depth == 2:
                        element += data[kept : at + 1]
                        kept = at + 1
                        count += 1
                        too_large = too_large or len(element) > self._limit
                        yield BadMessage("too_large") if too_large else bytes(element)
                        element.clear()
                        too_large = False
                    elif listed and depth == 1:
                        gap += data[kept:at]
                        kept = at
                        if gap.strip(_BLANKS):
                            raise BadMessage("bad_json", "Bundle.entry")
                        gap.clear()
                        listed = False
                at += 1
            (shell if not listed else gap if depth == 2 else element).extend(data[kept:at])
            rest = data[at:]
            if len(element) > self._limit:
                too_large = True
                element.clear()
            if len(shell) + len(gap) > self._limit:
                raise BadMessage("too_large")
        if depth or in_string or rest:
            raise BadMessage("bad_json")
        self.shell = bytes(shell)


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    found = pattern.match(data, at)
    assert found is not None  # both may match nothing
    return found.end()


# ------------------------------------------------------------------------------------------------------------- context


class Context:
    """The context resources of one bundle, found as references find them (http://hl7.org/fhir/R4/bundle.html#references)."""

    def __init__(self) -> None:
        self._by_url: dict[str, bytes] = {}
        self._by_id: dict[str, bytes] = {}
        self._by_identifier: dict[tuple[str, str, str], bytes] = {}
        self._parsed: dict[bytes, Resource] = {}
        self._size = 0

    def add(self, url: str, resource: Resource) -> None:
        """The first of several versions stays: histories are newest first. Raises too_large beyond MAX_CONTEXT."""
        kind = resource["resourceType"]
        kept = {"resourceType"} if kind in THINGS else resource.keys() - set(_LEFT_OUT)
        raw = canonical({name: value for name, value in resource.items() if name in kept})
        self._size += len(raw)
        if self._size > MAX_CONTEXT:
            raise BadMessage("too_large", "Bundle.entry")
        if url:
            self._by_url.setdefault(url, raw)
        if type(id := resource.get("id")) is str:
            self._by_id.setdefault(f"{kind}/{id}", raw)
        for one in _list(resource.get("identifier")):
            if type(one) is dict and type(value := one.get("value")) is str:
                self._by_identifier.setdefault((kind, str(one.get("system", "")), value), raw)

    def find(self, reference: str, base: str) -> Resource | None:
        """What a reference means in an entry whose fullUrl begins with `base`; None for what is not here."""
        plain = _HISTORY.sub("", reference)
        raw = self._by_url.get(plain)
        if raw is None and "?" in plain:
            kind, _, query = plain.partition("?")
            asked = parse_qs(query)
            if set(asked) == {"identifier"}:
                system, _, value = asked["identifier"][0].rpartition("|")
                raw = self._by_identifier.get((kind, system, value))
        elif raw is None and ":" not in plain:
            raw = (self._by_url.get(base + plain) if base else None) or self._by_id.get(plain)
        if raw is None:
            return None
        if raw not in self._parsed:
            if len(self._parsed) >= _PARSED:
                self._parsed.clear()
            self._parsed[raw] = orjson.loads(raw)
        return self._parsed[raw]

    def of(self, resource: Resource, url: str) -> dict[str, Resource]:
        """What a resource refers to, and what its encounter and roles refer to. Of a Patient: its links."""
        base = _base(url)
        found: dict[str, Resource] = {}
        waiting = [resource.get("link") if resource.get("resourceType") == "Patient" else resource]
        while waiting:
            for reference in references(waiting.pop()):
                if reference not in found and (one := self.find(reference, base)) is not None:
                    found[reference] = one
                    if one["resourceType"] in _FOLLOWED:
                        waiting.append(one)
        return found


def _base(url: str) -> str:
    """http://server/fhir/ of http://server/fhir/Patient/1; empty for a URN."""
    return _HISTORY.sub("", url).rsplit("/", 2)[0] + "/" if url.startswith("http") and url.count("/") > 3 else ""


def _list(value: Any) -> list[Any]:
    return value if type(value) is list else [] if value is None else [value]


# -------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Event:
    """What became of one entry. `where` is its place in the bundle, empty for a resource that stood alone."""

    position: int  # in Bundle.entry; 0 for a resource that stood alone
    kind: str  # type of the resource; empty where it cannot be told
    where: str
    made: Focus | None
    problem: BadMessage | None = None


def single(raw: bytes) -> Focus:
    """A resource that stands alone. Raises BadMessage."""
    resource = load(raw)
    validate(resource)
    _resolvable(resource, {})
    return Focus(resource)


class Bundle:
    """A document that may be read again and again from its beginning: a bundle, or one resource.

    `survey` before `events`. `answered`: its sender waits for an answer. Then requests that carry no resource are
    told one by one, and a URN that dangles anywhere in a transaction is an error: all fullUrls are kept for it.
    """

    def __init__(self, open: Open, limit: int, *, answered: bool = False) -> None:
        self._open, self._limit, self._answered = open, limit, answered
        self._context = Context()
        self._urls: set[str] = set()
        self._any_resource = self._checked = False
        self.shell: Resource = {}

    @property
    def type(self) -> str:
        """Bundle.type; empty for a resource that is no bundle."""
        return str(self.shell.get("type", "")) if self.shell.get("resourceType") == "Bundle" else ""

    def survey(self) -> None:
        """The first pass. Raises BadMessage for what is wrong with the document itself."""
        cut = Cut(self._open(), self._limit)
        for element in cut:
            if isinstance(element, bytes):
                self._learn(element)
        self.shell = load(cut.shell)
        if self.shell.get("entry"):  # under a name written with escapes, which the cut does not see
            raise BadMessage("bad_json", "entry")
        validate(self.shell)

    def _learn(self, element: bytes) -> None:
        self._any_resource = self._any_resource or _RESOURCE.search(element) is not None
        if not self._answered and _KEPT_TYPE.search(element) is None:
            return
        with contextlib.suppress(orjson.JSONDecodeError):  # the second pass tells
            self._remember(orjson.loads(element), 1)

    def _remember(self, entry: Resource, nesting: int) -> None:
        url, resource = entry.get("fullUrl", ""), entry.get("resource")
        if type(resource) is not dict or type(url) is not str:
            return
        if self._answered:
            self._urls.add(url)
        kind = resource.get("resourceType")
        if type(kind) is not str:
            return
        if kind == "Bundle" and nesting < MAX_NESTING:
            for one in _list(resource.get("entry")):
                if type(one) is dict:
                    self._remember(one, nesting + 1)
        elif kind in CONTEXT or kind in THINGS:
            with contextlib.suppress(BadMessage):  # one that is refused is nobody's context
                validate(resource)
                self._context.add(url, resource)

    def events(self, *, checked: bool = False) -> Iterator[Event]:
        """The second pass: one event an entry, in order. What is refused is told in its place; the rest goes on.

        `checked`: no entry was refused the last time. A bundle within a bundle gives the events of its own entries.
        Raises BadMessage as `survey` does, where the document is another by now.
        """
        self._checked = checked
        requests = self._answered and self.type in ("transaction", "batch")
        if self.shell.get("resourceType") != "Bundle" or not (self._any_resource or requests):
            yield self._alone()
            return
        for position, element in enumerate(Cut(self._open(), self._limit)):
            where = f"Bundle.entry[{position}]"
            if isinstance(element, BadMessage):
                yield Event(position, "", where, None, BadMessage(element.reason, where))
                continue
            try:
                entry = load(element)
            except BadMessage as bad:
                yield Event(position, "", where, None, BadMessage(bad.reason, where))
                continue
            yield from self._entry(entry, position, where, 1)

    def _alone(self) -> Event:
        """One resource; or a bundle in which nothing is a resource: of requests, of answers, empty."""
        resource = self.shell
        if resource.get("entry") == []:  # List has entries too
            try:
                resource = resource | {"entry": [*self._loaded()]}
            except BadMessage as bad:
                return Event(0, _kind(self.shell), "", None, bad)
        else:
            self._checked = True  # by the survey
        return self._event(resource, "", 0, "")

    def _loaded(self) -> Iterator[Resource]:
        size = 0
        for element in Cut(self._open(), self._limit):
            if isinstance(element, BadMessage) or (size := size + len(element)) > self._limit:
                raise BadMessage("too_large")
            yield load(element)

    def _entry(self, entry: Resource, position: int, where: str, nesting: int) -> Iterator[Event]:
        resource, url = entry.get("resource"), entry.get("fullUrl", "")
        request = entry.get("request", {})
        method = request.get("method") if type(request) is dict else ""
        if resource is None:
            yield self._refused(resource, position, where, "not_supported" if method else "no_resource", where)
        elif type(resource) is not dict or type(url) is not str:
            yield self._refused(resource, position, where, "bad_resource", where)
        elif method not in (None, "POST", "PUT"):
            yield self._refused(resource, position, where, "not_supported", where)
        elif method == "PUT" and not _fits(str(request.get("url", "")), resource):
            yield self._refused(resource, position, where, "bad_resource", f"{where}.request.url")
        elif resource.get("resourceType") == "Bundle" and (inner := resource.get("entry")) and nesting < MAX_NESTING:
            for number, one in enumerate(_list(inner)):
                place = f"{where}.resource.entry[{number}]"
                if type(one) is dict:
                    yield from self._entry(one, position, place, nesting + 1)
                else:
                    yield self._refused(None, position, place, "bad_resource", place)
        else:
            yield self._event(resource, url, position, where)

    def _refused(self, resource: Any, position: int, where: str, reason: str, place: str) -> Event:
        return Event(position, _kind(resource), where, None, BadMessage(reason, place))

    def _event(self, resource: Resource, url: str, position: int, where: str) -> Event:
        try:
            if not self._checked:
                validate(resource)
            context = self._context.of(resource, url)
            _resolvable(resource, context)
            if self._answered and self.type == "transaction" and not self._checked:
                self._not_dangling(resource)
        except BadMessage as bad:
            place = f"{where}.resource{bad.where[len(_kind(resource)) :]}" if where else bad.where
            return self._refused(resource, position, where, bad.reason, place)
        return Event(position, _kind(resource), where, Focus(resource, context, url))

    def _not_dangling(self, resource: Resource) -> None:
        for reference in references(resource):
            if reference.startswith("urn:") and reference not in self._urls:
                raise BadMessage("bad_reference")


def _kind(resource: Any) -> str:
    """The type, where R4 has it: it is shown, so it must not be anything."""
    kind = resource.get("resourceType") if type(resource) is dict else None
    return kind if type(kind) is str and known(kind) else ""


def _fits(url: str, resource: Resource) -> bool:
    """Whether PUT `Patient/123` carries Patient 123; a conditional PUT names no id."""
    kind, id = resource.get("resourceType"), resource.get("id")
    return url.startswith(f"{kind}?") or "/".join(url.split("/")[-2:]) == f"{kind}/{id}"


def _resolvable(resource: Resource, context: dict[str, Resource]) -> None:
    """Raise bad_reference unless the patient can be told.

    A literal reference is a fine name of a person; a URN is one in its bundle alone.
    """
    for name in SUBJECTS:
        said = resource.get(name)
        for one in _list(said):
            reference = one.get("reference") if type(one) is dict else None
            if type(reference) is not str or reference in context or _LITERAL.fullmatch(reference):
                continue
            if reference.startswith("#"):
                if any(inner.get("id") == reference[1:] for inner in _list(resource.get("contained"))):
                    continue
            elif _conditional(reference):
                continue
            raise BadMessage("bad_reference", f"{resource['resourceType']}.{name}")


def _conditional(reference: str) -> bool:
    """Whether it is Type?identifier=system|value, which names a person by a number."""
    kind, mark, query = reference.partition("?")
    return bool(mark) and kind.isalpha() and set(parse_qs(query)) == {"identifier"}
