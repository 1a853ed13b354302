"""A signal: something on `hospital.signals.v1` that a person should hear of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signal:
    """Codes only: signals are not sealed, so they may say nothing that identifies beyond the patient's reference."""

    name: str  # critical_result
    subject: int | None  # position of the patient in the record
    part: int  # position of the part it speaks of: with the event id, the document
    detail: dict[str, str]
