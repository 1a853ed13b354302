"""Training and checking the model of when patients leave, on the index as the caller's role sees it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from consumers import past
from consumers.access import Caller
from infra.audit import Audit
from infra.errors import UsageError
from schemas.envelope import rfc3339
from streams.allocation import leaves
from streams.allocation.leaves import Course
from streams.models import Card, Compared, Models, compare

TARGET = leaves.TARGET
NAME = f"{past.OF.name}-{TARGET}"
FIELDS = tuple(sorted({*past.STAY_FIELDS, *past.ESTIMATE_FIELDS}))


def train(caller: Caller) -> list[Card]:
    """One model more in the store. Raises Untrainable, Denied and StackDown."""
    Audit.local().write(caller.act("E", entities=(NAME,), fields=FIELDS))
    now = datetime.now(UTC)
    return train_courses(Models.local(), caller.account, past.courses(caller, now), now)


def train_courses(store: Models, account: str, courses: Sequence[Course], now: datetime) -> list[Card]:
    """The same from stays. Raises Untrainable."""
    parts = leaves.split(courses, now)
    model = leaves.fit(parts.training, parts.cut)
    incumbent = store.promoted(NAME)
    before = store.load(NAME, incumbent) if incumbent else None
    card = leaves.judged(model, parts, now, before)
    said = {"trained_at": rfc3339(now), "trained_by": account, "incumbent": incumbent}
    return [store.card(NAME, store.add(NAME, model, card.model_copy(update=said)))]


def check(caller: Caller, version: str) -> list[Compared]:
    """Every figure of a card beside the same one of today's index, as it was known when the model was trained.

    Raises as `train` does, and ModelAltered.
    """
    Audit.local().write(caller.act("E", entities=(f"{NAME}/{version}",), fields=FIELDS))
    return check_courses(Models.local(), version, past.courses(caller, datetime.now(UTC)))


def check_courses(store: Models, version: str, courses: Sequence[Course]) -> list[Compared]:
    """The same from stays. Raises Untrainable, ModelAltered, UsageError."""
    card, model = store.card(NAME, version), store.load(NAME, version)
    if card.target != TARGET:
        raise UsageError(f"{NAME}/{version} was not trained here")
    until, cut = datetime.fromisoformat(card.trained_at), datetime.fromisoformat(card.data.last)
    return compare(card, leaves.judged(model, leaves.window(courses, until, cut), until))
