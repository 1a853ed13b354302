"""Profiles of the systems that send to us: what their messages leave unsaid."""

from __future__ import annotations

import tomllib
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from schemas.record import Model

# HL7 table 0203, best first. A social security number is shared, mistyped and reused: last of all.
PRECEDENCE = ("MR", "PI", "MRT", "EPI", "PT", "PE", "PN", "NI", "CZ", "PRN", "", "XX", "U", "AN", "VN", "SS")


class Peer(Model):
    """One sender. `match` is `application|facility` (MSH-3|MSH-4, first components); `*` stands for any.

    A FHIR sender's application is the name that its listener or its files were given, and it has no facility. A DICOM
    sender's is its calling AE title, its facility the institution that the image names.
    """

    match: str = "*|*"
    charset: str | None = Field(None, description="codec to use whatever MSH-18 says")
    zone: str = Field("UTC", description="IANA zone of times that carry none")
    systems: dict[str, str] = Field(
        {},
        description="FHIR Identifier.system to CX.4 as HL7 v2 writes it, or to CX.4^CX.5",
    )
    authority: str = Field(
        "", description="whose series patient numbers of images are of, where (0010,0021) is left out"
    )
    address: str = Field(
        "",
        pattern=r"^$|:[0-9]{1,5}$",
        description="host:port at which a DICOM peer takes reports of storage commitment, where it does not wait for "
        "them on its own association",
    )
    visit_authority: str = Field("", description="whose series visit numbers are of, where houses have one each")
    precedence: tuple[str, ...] = Field(PRECEDENCE, description="identifier types (HL7 0203), best first")

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, zone: str) -> str:
        ZoneInfo(zone)
        return zone

    def rank(self, identifier_type: str) -> int:
        """Position of an identifier type; unknown types stand just before the social security number."""
        try:
            return self.precedence.index(identifier_type)
        except ValueError:
            return len(self.precedence) - 1


DEFAULT = Peer.model_validate({})


class Peers:
    """The profiles of one file, most exact match first."""

    def __init__(self, peers: tuple[Peer, ...] = ()) -> None:
        self._by_match = {peer.match: peer for peer in peers}

    @classmethod
    def load(cls, path: Path | None) -> Peers:
        """Read `[[peer]]` tables of a TOML file. Raises ValidationError or OSError: a wrong profile must not start."""
        if path is None:
            return cls()
        return cls(tuple(Peer.model_validate(row) for row in tomllib.loads(path.read_text()).get("peer", ())))

    def of_source(self, source: str) -> Peer:
        """By what an envelope calls the sender: feed:application|facility."""
        _, _, name = source.partition(":")
        application, _, facility = name.partition("|")
        return self.of(application, facility)

    def of(self, application: str, facility: str) -> Peer:
        for match in (f"{application}|{facility}", f"*|{facility}", f"{application}|*", "*|*"):
            if match in self._by_match:
                return self._by_match[match]
        return DEFAULT
