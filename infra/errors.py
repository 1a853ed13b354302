"""The errors a person or a peer may meet, each with a reason code that is safe to log, count and store.

A reason never carries a patient value: it is a word from this file or from the standard, so that it may become a
metric label, a dead-letter header and a line in a terminal.
"""

from __future__ import annotations


class WardstreamError(Exception):
    """Base of all our errors. `exit_code` is what the command ends with; `reason` is the bounded code."""

    exit_code = 1
    reason = "error"


class UsageError(WardstreamError):
    """The caller asked for something that cannot be: a bad query, an unknown field."""

    exit_code = 2
    reason = "usage"


class StackDown(WardstreamError):
    """A server that the command needs is not there."""

    exit_code = 3
    reason = "stack_down"


class NotTrusted(StackDown):
    """A server is there, and it refuses us or we refuse it: a certificate, a password, a right that is missing."""

    reason = "not_trusted"


class TamperedArtifact(WardstreamError):
    """A downloaded file does not have the digest that the committed lock gives it."""

    exit_code = 4
    reason = "tampered_artifact"


class BadMessage(WardstreamError):
    """A message that cannot become a record; it ends as a dead letter under `reason`.

    `where` names the place by the standard's own words (`PID-3`), never by its content.
    """

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{reason} at {where}" if where else reason)
        self.reason = reason
        self.where = where


class BadProblem(WardstreamError):
    """A planning problem, or a solution of one, that is not what its format says. `where` is the place in the file."""

    exit_code = 2

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{reason} at {where}" if where else reason)
        self.reason = reason
        self.where = where


class BadOutcome(WardstreamError):
    """An outcome that no chart can take, under `reason`: it is not counted, and what was counted stays as it was."""

    exit_code = 2

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PlanChanged(WardstreamError):
    """The plan that was to be accepted is no longer the one that is proposed."""

    exit_code = 19
    reason = "plan_changed"


class NoPlan(WardstreamError):
    """No plan that keeps every hard rule: none can exist (`impossible`), or none was found in the time."""

    reason = "no_plan"


class Denied(WardstreamError):
    """The caller may not do this: not logged in, wrong role, wrong purpose, no consent. Audited."""

    exit_code = 10
    reason = "denied"


class PolicyError(UsageError):
    """The access policy names something that is not there, or leaves something out."""

    reason = "policy"


class LegalHold(WardstreamError):
    """An erasure is refused while a law wants the record kept (GDPR art. 17(3)(b))."""

    exit_code = 11
    reason = "legal_hold"


class LedgerBroken(WardstreamError):
    """The ledger of erasures was altered: nothing opens until a person has looked."""

    exit_code = 14
    reason = "ledger_broken"


class AuditUnavailable(WardstreamError):
    """The audit cannot be written, so nothing is shown and nothing is done."""

    exit_code = 12
    reason = "audit_unavailable"


class AuditBroken(WardstreamError):
    """The audit is not what was written: an entry, or a head of it, was altered, removed, moved or made up."""

    exit_code = 13
    reason = "audit_broken"


class Overloaded(WardstreamError):
    """More is waiting here than we hold in memory: the sender keeps its message and sends it again later."""

    exit_code = 3
    reason = "overloaded"


class KeyStoreBusy(WardstreamError):
    """The key store is locked by somebody else, longer than a caller can wait."""

    exit_code = 3
    reason = "key_store_busy"


class DeadLetterLimit(WardstreamError):
    """Most of the last messages were refused: a bad deploy must not drain a topic into the dead letters."""

    exit_code = 8
    reason = "dead_letter_limit"


class KeyMissing(WardstreamError):
    """A key that the store has never heard of: a misconfigured store, never taken for an erasure."""

    reason = "key_missing"


class KeyShredded(WardstreamError):
    """A key destroyed on purpose: what it closed is gone."""

    exit_code = 5
    reason = "key_shredded"


class ErasedPerson(WardstreamError):
    """An event that happened before its person was erased, and came after it: dropped, and an alert raised."""

    exit_code = 5
    reason = "erased"


class SealBroken(WardstreamError):
    """A ciphertext that does not open: altered, or moved to another patient, record or field."""

    exit_code = 6
    reason = "seal_broken"


class ObjectsAway(StackDown):
    """The store of objects does not do what it is asked."""

    reason = "objects_away"


class ObjectMissing(WardstreamError):
    """A sealed object that is not in the store: removed by an erasure or by retention, or the store is another one."""

    exit_code = 20
    reason = "object_missing"


class ModelAltered(WardstreamError):
    """A model's artefact, card or state is not what this installation has signed, or lies in another one's place."""

    exit_code = 16
    reason = "model_altered"


class ModelTypes(WardstreamError):
    """A model's artefact holds something that is not on the list of what a model is made of."""

    exit_code = 16
    reason = "model_types"


class ModelOutdated(WardstreamError):
    """A model that was trained with another series of its library: what it would say now nobody has measured."""

    exit_code = 16
    reason = "model_outdated"


class NotBetter(WardstreamError):
    """A model that does not beat its baselines, or the one that is promoted, on the same hold-out."""

    exit_code = 17
    reason = "not_better"


class Inestimable(WardstreamError):
    """Outcomes from which a figure cannot be estimated. `where` names a column, a group or a row's number, no value."""

    exit_code = 18

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{reason}: {where}" if where else reason)
        self.reason = reason
        self.where = where


class Untrainable(WardstreamError):
    """Rows that no model can be trained on: of one class (`one_class`), or of too few patients (`too_few_patients`)."""

    exit_code = 18

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(f"{reason}: {sentence}")
        self.reason = reason
