"""The access policy: the table of `policy.toml`, read whole and checked, and the questions asked of it. Pure.

Default deny: a role, purpose, domain or field that the table does not name is refused. A name that means nothing is an
error when the table is read, never a silent refusal: a list that was mistyped would otherwise look strict and be wrong.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.errors import PolicyError
from schemas import safe_harbor
from schemas.marks import Clinical, Identifying, Mark, Open, Staffed
from schemas.registry import Domain

VERBS = ("search", "see", "reveal")
ACTIONS = frozenset(
    ("search", "reveal", "dead_letters", "dead_letters_show", "replay", "audit", "erase", "hold", "consent", "keys")
    + ("accounts", "retention", "export", "breakglass", "review", "models", "plan", "image", "deidentify")
)
EMERGENCY = "ETREAT"

# Fields that the agent puts on every document, by the group they belong to. Not here, and so in no list: `sealed`,
# `sealed_by`, `blind`, `folded`, `history`, `version_of`, `told_at`, `stay` and `expected`, which are machinery.
COMMON = {
    "event_id": "record",
    "part": "record",
    "kind": "record",
    "event_time": "record",
    "received_at": "record",
    "source": "record",
    "peer": "record",
    "trace_id": "record",
    "patient_ref": "record",
    "staff_ref": "staff",
    "text": "text",
    "affirmed": "text",
    "negated": "text",
    "uncertain": "text",
    "family": "text",
    "sections": "text",
    "state": "clinical",
}
MACHINERY = frozenset(
    ("sealed", "sealed_by", "blind", "folded", "history", "version_of", "told_at", "stay", "expected")
)
GROUPS = ("record", "open", "clinical", "text", "staff", "identifying", "times", "safe_harbor")


@dataclass(frozen=True, slots=True)
class Lists:
    """Fields by domain and verb, groups resolved."""

    fields: Mapping[tuple[str, str], frozenset[str]]

    def of(self, domain: str, verb: str) -> frozenset[str]:
        return self.fields.get((domain, verb), frozenset())


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    purposes: tuple[str, ...]  # the first is the default
    actions: frozenset[str]
    safe_harbor: bool
    usual: Lists
    emergency: Lists


@dataclass(frozen=True, slots=True)
class Policy:
    roles: Mapping[str, Role]
    consent: Mapping[str, bool]  # by purpose that a patient decides on: whether silence permits
    break_glass_minutes: int

    def permits(self, role: str, purpose: str, action: str) -> bool:
        """Whether a role may do this at all, for this purpose."""
        found = self.roles.get(role)
        return found is not None and purpose in found.purposes and action in found.actions

    def fields(self, role: str, purpose: str, domain: str, verb: str) -> frozenset[str]:
        """What a role may search, see or reveal; nothing for a purpose it does not have."""
        found = self.roles.get(role)
        if found is None or purpose not in found.purposes:
            return frozenset()
        usual = found.usual.of(domain, verb)
        return usual | found.emergency.of(domain, verb) if purpose == EMERGENCY else usual

    def allows(self, role: str, purpose: str, domain: str, verb: str, field: str) -> bool:
        return field in self.fields(role, purpose, domain, verb)


def parse(text: str, domains: Iterable[Domain], purposes: Collection[str]) -> Policy:
    """Read the table. Raises PolicyError, which says where, for anything it cannot mean."""
    try:
        table = tomllib.loads(text)
        known = {domain.name: _Fields(domain) for domain in domains}
        _only(table, {"break_glass_minutes", "consent", "roles"}, "the policy")
        _only(table["consent"], set(purposes) - {EMERGENCY}, "consent")
        return Policy(
            {name: _role(name, one, known, purposes) for name, one in table["roles"].items()},
            {purpose: {"permit": True, "deny": False}[said] for purpose, said in table["consent"].items()},
            int(table["break_glass_minutes"]),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"the policy cannot be read: {type(error).__name__} {error}") from None


class _Fields:
    """A domain's fields by name and group, and what each verb can reach."""

    def __init__(self, domain: Domain) -> None:
        marks, properties = domain.marks(), domain.mapping()["properties"]
        clear = properties.keys() - MACHINERY
        self.groups: dict[str, set[str]] = {name: set() for name in GROUPS}
        for name in clear | marks.keys():
            self.groups[_group(name, marks)].add(name)
        self.groups["times"] = {name for name in clear if properties[name]["type"] == "date"}
        self.groups["safe_harbor"] = clear & safe_harbor.kept(marks)
        sealed = {name for name, mark in marks.items() if isinstance(mark, Identifying | Staffed)}
        found = {*domain.sought(), *domain.sought_together()}
        self.reach = {"search": clear | found, "see": set(clear), "reveal": sealed}

    def resolve(self, listed: list[str], verb: str, where: str) -> frozenset[str]:
        added: set[str] = set()
        taken: set[str] = set()
        for one in listed:
            name = one.removeprefix("-")
            if name not in self.groups and name not in self.reach[verb]:
                raise PolicyError(f"{where}: there is no field {name!r} to {verb}")
            (taken if one.startswith("-") else added).update(self.groups.get(name, {name}))
        return frozenset((added - taken) & self.reach[verb])


def _group(name: str, marks: Mapping[str, Mark]) -> str:
    match marks.get(name):
        case Identifying():
            return "identifying"
        case Staffed():
            return "staff"
        case Clinical(text=True) | Open(text=True):
            return "text"
        case Clinical():
            return "clinical"
        case Open():
            return "open"
    if name not in COMMON:
        raise PolicyError(f"the common field {name!r} belongs to no group: add it to COMMON in schemas/policy.py")
    return COMMON[name]


def _role(name: str, table: dict[str, Any], known: dict[str, _Fields], purposes: Collection[str]) -> Role:
    where = f"roles.{name}"
    _only(table, {"purposes", "actions", "safe_harbor", "break_glass"} | known.keys(), where)
    _only(table["purposes"], purposes, f"{where}.purposes")
    _only(table["actions"], ACTIONS, f"{where}.actions")
    if not table["purposes"]:
        raise PolicyError(f"{where} has no purpose")
    usual = {domain: one for domain, one in table.items() if domain in known}
    emergency = table.get("break_glass", {})
    _only(emergency, known, f"{where}.break_glass")
    if table.get("safe_harbor", False):
        _keeps_safe_harbor(where, usual, emergency, known)
    return Role(
        name,
        tuple(table["purposes"]),
        frozenset(table["actions"]),
        bool(table.get("safe_harbor", False)),
        _lists(usual, known, where),
        _lists(emergency, known, f"{where}.break_glass"),
    )


def _lists(tables: Mapping[str, Any], known: Mapping[str, _Fields], where: str) -> Lists:
    made: dict[tuple[str, str], frozenset[str]] = {}
    for domain, lists in tables.items():
        _only(lists, VERBS, f"{where}.{domain}")
        for verb, listed in lists.items():
            made[domain, verb] = known[domain].resolve(listed, verb, f"{where}.{domain}.{verb}")
    return Lists(made)


def _keeps_safe_harbor(where: str, usual: dict[str, Any], emergency: dict[str, Any], known: dict[str, _Fields]) -> None:
    """A query or an order by time would tell the day that the view hides; a reference is one person."""
    if emergency:
        raise PolicyError(f"{where}: a Safe Harbor role breaks no glass")
    for domain, lists in usual.items():
        groups = known[domain].groups
        view = groups["safe_harbor"]
        may = {"search": view - groups["times"] - {"patient_ref"}, "see": view, "reveal": set[str]()}
        for verb, listed in lists.items():
            _only(known[domain].resolve(listed, verb, where), may[verb], f"{where}.{domain}.{verb} (Safe Harbor)")


def _only(names: Iterable[str], known: Collection[str], where: str) -> None:
    if strange := sorted(set(names) - set(known)):
        raise PolicyError(f"{where}: {strange[0]!r} means nothing there; known are {', '.join(sorted(known))}")
