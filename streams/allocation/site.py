"""One site at one moment: beds, who lies in them, who waits, who works. What the planner, the board and the signals
read, and what the simulator and the live state make. Pure; all refer to persons by reference alone.

Times are hours since `Site.at`, so that a plan of the same state is the same plan; loads are in the units of the
site's own workload score per shift, prices in the site's own currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FREE, OCCUPIED, CLOSED, HOUSEKEEPING, CONTAMINATED, ISOLATED = "U", "O", "C", "H", "K", "I"  # HL7 table 0116
USABLE = frozenset((FREE, OCCUPIED, ISOLATED, HOUSEKEEPING))


@dataclass(frozen=True, slots=True)
class Bed:
    """A bed as its location events tell it. `id` is unit|room|bed within the site (PL.1, PL.2, PL.3)."""

    id: str
    unit: str
    room: str
    status: str = FREE  # HL7 table 0116
    services: frozenset[str] = frozenset()  # PV1-10 codes it is meant for; empty: any
    features: frozenset[str] = frozenset()  # isolation, monitor, oxygen, bariatric, ...
    position: tuple[float, float] = (0.0, 0.0)  # metres, for the way of a move
    price: float = 0.0  # a day


@dataclass(frozen=True, slots=True)
class Need:
    """What a patient needs of a bed, whether already here or waiting."""

    ref: str  # of the stay, or of the request
    patient: str  # reference
    service: str = ""  # PV1-10
    sex: str = ""  # PID-8: M, F; others share with nobody's rule broken
    age: int | None = None  # years; 90 stands for all above
    needs: frozenset[str] = frozenset()  # features that the bed must have
    isolation: str = ""  # organism or kind of precaution: patients of one kind may share a room, others may not
    leaves: float = 48.0  # expected end of the stay, hours from now
    load: float = 1.0  # of nursing, per shift
    skill: int = 0  # least skill of a nurse


@dataclass(frozen=True, slots=True)
class Stay:
    """Somebody who is in. `bed` is None where the events place nobody anywhere, or in an unknown bed."""

    need: Need
    bed: str | None
    since: float = 0.0  # hours, negative: when this placement began
    came: float = 0.0  # hours, negative: when the stay began, wherever that was
    due: float | None = None  # hours until the end that the ward expects; None: it has said nothing


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody who waits for a bed: the emergency department, a transfer, or the waiting list."""

    need: Need
    priority: int = 3  # 1 first, as triage scales count
    waits: float = 0.0  # hours until now
    due: float | None = None  # hours from now by when it must be; None: no such
    surgeon: str = ""  # staff reference, where an operation comes with it
    minutes: int = 0  # of theatre


@dataclass(frozen=True, slots=True)
class Nurse:
    """A member of staff in one shift. `units`: where he or she may work; empty: anywhere."""

    ref: str  # staff reference
    starts: float
    ends: float
    skill: int = 0
    load: float = 10.0  # most in this shift
    units: frozenset[str] = frozenset()
    rooms: frozenset[str] = frozenset()  # unit|room, as assigned now


@dataclass(frozen=True, slots=True)
class Theatre:
    """An operating theatre: minutes that are left today."""

    id: str
    minutes: int
    price: float = 0.0  # of opening it


@dataclass(frozen=True, slots=True)
class Weights:
    """What a breach or a change costs, in one unit. A plan's cost is a sum of these; the defaults are the
    documentation's, a site sets its own."""

    waiting: float = 10.0  # an hour, times 4 - priority
    unplaced: float = 400.0  # a request without a bed, times 4 - priority
    move: float = 60.0  # of somebody who lies
    metre: float = 0.05  # of a move's way
    service: float = 30.0  # a bed meant for another service
    age_mix: float = 1.0  # a year between the oldest and the youngest of a room
    skill: float = 20.0  # a level that a nurse lacks
    overload: float = 10.0  # a unit of load above a nurse's most
    continuity: float = 15.0  # a room that changes its nurse
    change: float = 25.0  # an assignment of the accepted plan that this one changes


@dataclass(frozen=True, slots=True)
class Site:
    """Everything at one moment."""

    id: str
    at: str  # RFC 3339, UTC
    beds: Mapping[str, Bed]
    stays: tuple[Stay, ...] = ()
    requests: tuple[Request, ...] = ()
    nurses: tuple[Nurse, ...] = ()
    theatres: tuple[Theatre, ...] = ()
    weights: Weights = field(default_factory=Weights)
