"""What every domain's record is made of: persons, and parts that people count."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from schemas.marks import Clinical, Identifying, Mark, Open, Staffed


class Model(BaseModel):
    """Frozen, closed, and silent about its input in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Identifier(Model):
    """A number somebody was given. `authority` is the assigner, or the sending facility where none is said."""

    authority: str
    type: str  # HL7 table 0203: MR, SS, ...
    value: str


SHARED = ("AN", "VN", "SS")  # an account, a visit, a number that whole families use: these tell persons apart badly


class Subject(Model):
    """A person as one message names him or her: all identifiers, in the peer's order of precedence.

    Whose keys seal the message: a patient, or, where it is about nobody else (a shift), a member of staff.
    """

    identifiers: tuple[Identifier, ...]
    kind: str = "patient"  # or staff, as the key store calls them

    def linking(self) -> tuple[Identifier, ...]:
        """The identifiers that may find or make a person: the shared kinds only where there is nothing better."""
        return tuple(one for one in self.identifiers if one.type not in SHARED) or self.identifiers


class StaffMember(Model):
    """A doctor, nurse or other agent of care. Identifying: sealed under the member's own key."""

    role: str  # attending, referring, ordering, author, ...
    identifier: Identifier | None
    name: str


class Merge(Model):
    """`prior` becomes an alias of `survivor`; both are positions in `Record.subjects`."""

    prior: int
    survivor: int


class Part(Model):
    """One thing people count: an observation, an order, a note. Becomes one document.

    `subject` is the position of its patient in `Record.subjects`, None where it has none.
    """

    kind: ClassVar[str]
    marks: ClassVar[dict[str, Mark]] = {}

    subject: int | None = None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.marks = {}
        for name, field in cls.model_fields.items():
            if name == "subject":
                continue
            marks = [m for m in field.metadata if isinstance(m, Identifying | Staffed | Clinical | Open)]
            if len(marks) != 1:
                raise TypeError(f"{cls.__name__}.{name} needs exactly one privacy mark")
            cls.marks[name] = marks[0]

    def fields(self) -> list[tuple[str, Mark, Any]]:
        """Name, mark and value of every field that carries something."""
        held, marks = self.__dict__, self.marks
        return [
            (name, marks[name], value)
            for name in sorted(self.__pydantic_fields_set__)  # a set: sorted, so that every process tells it alike
            if (value := held[name]) is not None and value != "" and value != () and name in marks
        ]


class Record(Model):
    """One message, read and validated.

    `terms` are the identifying words of everybody in the message (names, numbers, streets, phones); they are removed
    from text and then forgotten: never stored, sealed or logged. `told_at` is when the sender wrote the record down,
    where that is not the event's time: a later version of a state wins over an earlier one by it. `unnamed`: text was
    left out, since the message does not say what its patients are called; read with what is known of them, it is not.
    `sex` and `age`: of its one patient, where no part of it says them.
    `versions`: of each part, what is equal for all versions of it that its source ever tells, "" for none.
    """

    subjects: tuple[Subject, ...]
    parts: tuple[Part, ...]
    merges: tuple[Merge, ...] = ()
    terms: tuple[str, ...] = ()
    event_time: datetime | None
    told_at: datetime | None = None
    unnamed: bool = False
    sex: str = ""
    age: int | None = None
    versions: tuple[str, ...] = ()
