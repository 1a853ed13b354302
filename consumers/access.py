"""Who may do what: the caller's session, the role that he or she acts in, and the policy. Every refusal is audited."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import schemas.policy
from consumers.break_glass import Grants
from consumers.consent import Consents, Persons
from infra.accounts import Account, Accounts, keep, os_user, token
from infra.audit import PURPOSES, Act, Audit
from infra.errors import Denied, StackDown, UsageError
from infra.keystore import KeyStore
from infra.settings import settings
from schemas.policy import EMERGENCY, Policy
from schemas.registry import DOMAINS, Domain

# What the audit calls an action that was refused.
KINDS = {
    "dead_letters": "dead_letter",
    "dead_letters_show": "dead_letter",
    "erase": "erasure",
    "keys": "key",
    "accounts": "account",
    "breakglass": "break_glass",
    "review": "break_glass",
    "models": "model",
    "deidentify": "export",
}


@cache
def policy() -> Policy:
    """The policy of this installation. Raises PolicyError for one that cannot be meant, UsageError for none."""
    path = settings().policy or Path(schemas.policy.__file__).with_suffix(".toml")
    try:
        return schemas.policy.parse(path.read_text(), DOMAINS.values(), PURPOSES)
    except OSError as error:
        raise UsageError(f"the access policy cannot be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Caller:
    """An account in one role, for one purpose, with an action that the policy permits."""

    account: str
    role: str
    purpose: str
    action: str

    def act(self, action: str, **said: Any) -> Act:
        """The audit's words for what this caller does."""
        kind = KINDS.get(self.action, self.action)
        return Act(kind, action, who=self.account, role=self.role, purpose=self.purpose, **said)

    @property
    def safe_harbor(self) -> bool:
        return policy().roles[self.role].safe_harbor

    def fields(self, of: Domain, verb: str) -> frozenset[str]:
        return policy().fields(self.role, self.purpose, of.name, verb)

    def require(self, of: Domain, verb: str, names: Iterable[str]) -> None:
        """Raises Denied where the role may not search, see or reveal one of these fields."""
        if refused := sorted(set(names) - self.fields(of, verb)):
            said = f"as {self.role} for {self.purpose} you may not {verb} {', '.join(refused)}"
            self.refuse("field", said, fields=tuple(refused))

    def persons(self) -> Persons:
        """Whom this caller may look at: in an emergency those of the grants, else all who have not denied it.

        Raises Denied for an emergency that nobody has declared.
        """
        _, keys = KeyStore.local()
        if self.purpose != EMERGENCY:
            return consenting(self.purpose, keys)
        if not (granted := Grants.local(keys).open_to(self.account)):
            self.refuse("no_break_glass", "no emergency is declared: `wardstream breakglass --patient --reason`")
        return Persons(False, granted)

    def require_persons(self, refs: Iterable[str | None], **said: Any) -> None:
        """Raises Denied where one of these patients is closed to the caller."""
        persons, refs = self.persons(), list(refs)
        if not all(persons.permits(ref) for ref in refs):
            patients = tuple(sorted({ref for ref in refs if ref}))
            if self.purpose == EMERGENCY:
                self.refuse("no_break_glass", "no emergency was declared for this patient", patients=patients, **said)
            self.refuse("consent", f"the patient has not permitted {self.purpose}", patients=patients, **said)

    def refuse(self, why: str, sentence: str, **said: Any) -> NoReturn:
        """Write a refusal into the audit. Raises Denied."""
        Audit.local().write(self.act("E", outcome="4", why=why, **said))
        raise Denied(sentence)


def permit(action: str, purpose: str | None = None, role: str | None = None) -> Caller:
    """The caller, in the first of the account's roles that may do this for this purpose, or in the role asked for.

    Raises UsageError for a purpose that is none, StackDown where nobody has an account yet, Denied for all else.
    """
    if purpose is not None and purpose not in PURPOSES:
        raise UsageError(f"--purpose is one of {', '.join(PURPOSES)} (HL7 v3 PurposeOfUse)")
    account = logged_in(action)
    asked = Caller(account.name, role or "", purpose or "", action)
    if role is not None and role not in account.roles:
        asked.refuse("wrong_role", f"this account has not the role {role}: it has {', '.join(account.roles)}")
    for one in account.roles if role is None else (role,):
        if (known := policy().roles.get(one)) is not None:
            wanted = purpose or known.purposes[0]
            if policy().permits(one, wanted, action):
                return Caller(account.name, one, wanted, action)
    of = role or ", ".join(account.roles)
    asked.refuse("wrong_purpose", f"the policy has no {action} for {of}" + (f" with {purpose}" if purpose else ""))


def logged_in(action: str = "login") -> Account:
    """Whose session this is. Raises Denied, and StackDown where nobody has an account yet."""
    accounts = Accounts.local()
    if (account := accounts.of_session(token())) is not None:
        return account
    if not accounts.any():
        raise StackDown("nobody has an account here yet: run `wardstream up --detach`, or `wardstream users add`")
    Audit.local().write(Act(KINDS.get(action, action), "E", outcome="4", why="not_logged_in"))
    raise Denied("not logged in, or the session is over: `wardstream login` (on an embedded stack: `wardstream up`)")


def consenting(purpose: str, keys: KeyStore) -> Persons:
    """Whom a purpose may look at, by the patients' own decisions; everybody where it is not theirs to decide."""
    silence = policy().consent.get(purpose)
    return Persons(True) if silence is None else Consents.local(keys).persons(purpose, silence)


def bootstrap() -> str | None:
    """Let the owner of an embedded home in: an account with every role, or a new session of it. Says what it did.

    Whoever owns the home owns its keyring, and so could open everything without us; a password would protect nothing.
    """
    accounts, name = Accounts.local(), os_user()
    if not accounts.any():
        roles = tuple(policy().roles)
        Audit.local().write(Act("account", "C", who=name, entities=(name,), detail={"roles": ",".join(roles)}))
        accounts.add(name, roles, None)
        keep(accounts.open(name))
        return f"made the account {name} with all roles, and logged it in on this home"
    if accounts.of_session(token()) is not None:
        return None
    last = accounts.of_session(token(), expired=True)
    mine = any(one.name == name and not one.has_password and not one.disabled for one in accounts.all())
    if not mine or (last is not None and last.name != name):
        return None
    Audit.local().write(Act("login", "E", who=name))
    keep(accounts.open(name))
    return f"logged {name} in on this home"
