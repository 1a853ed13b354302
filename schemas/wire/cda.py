"""The text of an HL7 CDA document (C-CDA and its kin): what its sections say to a reader, and whom its header names.

Only narrative is taken (`section/title`, `section/text`: CDA R2, 4.3.5), never an entry or the header. One pass of
expat, which is told of no DTD and so of no entity: whatever declares one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.parsers import expat

from schemas.lexicon import words

MEDIA_TYPES = frozenset(("text/xml", "application/xml", "application/hl7-v3+xml", "application/hl7-cda+xml"))
_NAMESPACE = "urn:hl7-org:v3 "
_BLOCKS = words("paragraph list item table tr caption br title text")
_CELLS = words("td th")
_PERSONS = words("patient assignedPerson guardianPerson relatedPerson associatedPerson informationRecipient")
_DEEPEST = 200


class NotCda(Exception):
    """XML of another kind, broken, too deep, or with a DTD."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text, and whom the header of its document names: of everybody names, streets and telephones, and of the
    patient numbers."""

    text: str
    names: tuple[str, ...] = ()
    streets: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


def read(content: bytes) -> Text:
    """Raises NotCda. Takes the encoding that the XML declaration names."""
    reading = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.said
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError):  # the last: an encoding that nobody knows
        raise NotCda from None
    names, streets, numbers = (tuple(dict.fromkeys(one)) for one in (reading.names, reading.streets, reading.numbers))
    return Text(reading.text(), names, streets, numbers)


def _refuse(*_: object) -> None:
    raise NotCda


class _Reading:
    def __init__(self) -> None:
        self.path: list[str] = []
        self.found: list[str] = []
        self.names: list[str] = []
        self.streets: list[str] = []
        self.numbers: list[str] = []
        self.shown = self.struck = 0  # depth at which narrative, or text that a later version struck out, began
        self.into: list[str] | None = None  # where the text of the present element goes, in pieces
        self.pieces: list[str] = []

    def start(self, tag: str, given: Mapping[str, str]) -> None:
        name = tag.removeprefix(_NAMESPACE)
        if not self.path and tag != f"{_NAMESPACE}ClinicalDocument":
            raise NotCda
        outer = self.path[-1] if self.path else ""
        self.path.append(name)
        if len(self.path) > _DEEPEST:
            raise NotCda
        if not self.shown and outer == "section" and name in ("title", "text"):
            self.shown = len(self.path)
        if self.shown:
            if given.get("revised") == "delete" and not self.struck:
                self.struck = len(self.path)
            self.found.append("\n" if name in _BLOCKS else " " if name in _CELLS else "")
        elif name in ("given", "family") or (name == "name" and outer in _PERSONS):
            self._keep(self.names)
        elif name == "streetAddressLine":
            self._keep(self.streets)
        elif name == "telecom":
            self.numbers += filter(None, [given.get("value", "").rpartition(":")[2]])
        elif name == "id" and outer == "patientRole":
            self.numbers += filter(None, [given.get("extension", "")])

    def _keep(self, into: list[str] | None) -> None:
        """Finish what was being read, and read on into another list, or none."""
        if self.into is not None and (said := "".join(self.pieces).strip()):
            self.into.append(said)
        self.into = into
        self.pieces.clear()

    def end(self, tag: str) -> None:
        name = self.path.pop()
        if self.struck > len(self.path):
            self.struck = 0
        if self.shown:
            self.found.append("\n" if name in _BLOCKS else "")
            if self.shown > len(self.path):
                self.shown = 0
        self._keep(None)

    def said(self, text: str) -> None:
        if self.shown and not self.struck:
            self.found.append(text)
        elif self.into is not None:
            self.pieces.append(text)

    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self.found).split("\n"))
        return "\n".join(line for line in lines if line)
