"""`login`, `logout`, `whoami`, `users`, `consent` and `breakglass`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers.access import logged_in, permit, policy
from consumers.break_glass import Grants
from consumers.consent import Consents
from consumers.person import ref as find
from infra import accounts as local
from infra.accounts import Accounts
from infra.audit import Act, Audit
from infra.errors import Denied, StackDown, UsageError
from infra.kafka import PublishFailed
from infra.keystore import KeyStore
from schemas.envelope import rfc3339
from schemas.policy import EMERGENCY

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Role = Annotated[str | None, typer.Option(help="Which of your roles to act in; default: the first that may.")]
Roles = Annotated[list[str], typer.Option("--role", help="Repeatable; the first is the default.")]
Stdin = Annotated[bool, typer.Option("--password-stdin", help="Read passwords from standard input, one a line.")]
Name = Annotated[str, typer.Argument(help="The account's name.")]
Patient = Annotated[str, typer.Option(help="A reference (patient_ref), or authority|type|value.")]

For = Annotated[str, typer.Option("--purpose", help="TREAT, HPAYMT, HOPERAT or HRESCH.")]
Until = Annotated[datetime | None, typer.Option(help="Counts until then, UTC; default: until another decision.")]


def register(app: typer.Typer) -> None:
    _sessions(app)
    _users(app)
    _consent(app)
    _break_glass(app)


def _sessions(app: typer.Typer) -> None:
    @app.command()
    def login(
        name: Annotated[str | None, typer.Argument(help="Default: as the operating system knows you.")] = None,
        password_stdin: Stdin = False,
    ) -> None:
        """Open a session of twelve hours on this home."""
        wanted, accounts = name or local.os_user(), Accounts.local()
        try:
            token = accounts.login(wanted, _password("Password", password_stdin))
        except Denied:
            known = any(one.name == wanted for one in accounts.all())  # else what was typed may be a password
            Audit.local().write(Act("login", "E", who=wanted if known else "unknown", outcome="4", why="login_failed"))
            raise
        Audit.local().write(Act("login", "E", who=wanted))
        local.keep(token)
        typer.echo(f"logged in as {wanted}")

    @app.command()
    def logout() -> None:
        """End this home's session."""
        account = logged_in()
        Audit.local().write(Act("login", "D", who=account.name))
        Accounts.local().close(local.token())
        local.forget()

    @app.command()
    def whoami(as_json: Json = False) -> None:
        """Say who is logged in, and in which roles."""
        account = logged_in()
        purposes = {role: policy().roles[role].purposes for role in account.roles if role in policy().roles}
        if as_json:
            typer.echo(json.dumps({"name": account.name, "roles": account.roles, "purposes": purposes}))
            return
        typer.echo(account.name)
        for role, one in purposes.items():
            typer.echo(f"  {role}: {', '.join(one)}")


def _users(app: typer.Typer) -> None:
    users = typer.Typer(help="Local accounts and their roles.", no_args_is_help=True)
    app.add_typer(users, name="users")

    @users.command()
    def add(name: Name, roles: Roles, password_stdin: Stdin = False) -> None:
        """Make an account. The first of all needs no login, and a role that may make others."""
        _known(roles)
        accounts = Accounts.local()
        first = not accounts.any()
        if first and not any("accounts" in policy().roles[role].actions for role in roles):
            raise UsageError("the first account needs a role that may make others: privacy_officer, or operator")
        act = Act("account", "C", who=local.os_user()) if first else permit("accounts").act("C")
        password = _password("Password", password_stdin, new=True)
        _write(act, name, roles)
        accounts.add(name, roles, password, only_first=first)

    @users.command("list")
    def list_accounts(as_json: Json = False) -> None:
        """Every account."""
        permit("accounts")
        rows = [{"name": one.name, "roles": one.roles, "disabled": one.disabled} for one in Accounts.local().all()]
        _print(rows, as_json)

    @users.command()
    def disable(name: Name) -> None:
        """Close an account for good: its sessions end, and nobody logs in to it again."""
        _write(_on_another("D", name), name)
        Accounts.local().disable(name)

    @users.command("roles")
    def change_roles(name: Name, roles: Roles) -> None:
        """Give an account these roles and no others."""
        _known(roles)
        _write(_on_another("U", name), name, roles)
        Accounts.local().change_roles(name, roles)

    @users.command()
    def passwd(name: Annotated[str | None, typer.Argument()] = None, password_stdin: Stdin = False) -> None:
        """Change a password: one's own, with the present one; or another's, with the right to. Ends its sessions."""
        accounts, mine = Accounts.local(), logged_in("accounts")
        if name in (None, mine.name):
            act = Act("account", "U", who=mine.name)
            if mine.has_password:
                accounts.close(accounts.login(mine.name, _password("Present password", password_stdin)))
        else:
            act = permit("accounts").act("U")
        wanted = accounts.named(name or mine.name).name
        password = _password("New password", password_stdin, new=True)
        _write(act, wanted)
        accounts.change_password(wanted, password)


def _on_another(action: str, name: str) -> Act:
    """Nobody gives roles to himself or herself, nor shuts the door from inside. Raises Denied, UsageError."""
    caller = permit("accounts")
    Accounts.local().named(name)
    if name == caller.account:
        caller.refuse("own_account", "somebody else has to do that to your account", entities=(name,))
    return caller.act(action)


def _write(act: Act, name: str, roles: list[str] | None = None) -> None:
    Audit.local().write(replace(act, entities=(name,), detail={"roles": ",".join(roles)} if roles else {}))


def _known(roles: list[str]) -> None:
    if strange := [role for role in roles if role not in policy().roles]:
        raise UsageError(f"the policy has no role {strange[0]!r}: it has {', '.join(policy().roles)}")


def _password(asked: str, from_stdin: bool, new: bool = False) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    typed: str = typer.prompt(asked, hide_input=True, confirmation_prompt=new, err=True)
    return typed


def _consent(app: typer.Typer) -> None:
    consent = typer.Typer(help="What patients permit and deny, purpose by purpose.", no_args_is_help=True)
    app.add_typer(consent, name="consent")

    @consent.command()
    def deny(patient: Patient, purpose: For, until: Until = None) -> None:
        """The patient's data may not be looked at for a purpose."""
        _decide(patient, purpose, False, until)

    @consent.command("permit")
    def allow(patient: Patient, purpose: For, until: Until = None) -> None:
        """The patient's data may be looked at for a purpose."""
        _decide(patient, purpose, True, until)

    @consent.command("list")
    def list_decisions(patient: Patient, as_json: Json = False) -> None:
        """Every decision of a patient, oldest first: of each purpose the last that has not ended counts."""
        caller = permit("consent")
        _, keys = KeyStore.local()
        ref = find(patient, keys)
        Audit.local().write(caller.act("R", patients=(ref,)))
        rows: list[dict[str, Any]] = [
            {
                "purpose": one.purpose,
                "decision": "permit" if one.permit else "deny",
                "at": _time(one.at),
                "until": one.until and _time(one.until),
                "account": one.account,
            }
            for one in Consents.local(keys).of_person(ref)
        ]
        _print(rows, as_json)


def _decide(patient: str, purpose: str, permitted: bool, until: datetime | None) -> None:
    caller = permit("consent")
    if purpose not in policy().consent:
        raise UsageError(f"a patient decides on {', '.join(policy().consent)}; {purpose} is not theirs to decide")
    _, keys = KeyStore.local()
    ref = find(patient, keys)
    said = {"decision": "permit" if permitted else "deny", "for": purpose}
    Audit.local().write(caller.act("U", patients=(ref,), detail=said))
    ends = until.replace(tzinfo=UTC).timestamp() if until else None
    Consents.local(keys).decide(ref, purpose, permitted, ends, caller.account)


def _break_glass(app: typer.Typer) -> None:
    glass = typer.Typer(help="In an emergency: see one patient now, answer for it later.", invoke_without_command=True)
    app.add_typer(glass, name="breakglass")

    @glass.callback()
    def declare(
        context: typer.Context,
        patient: Annotated[str | None, typer.Option(help="A reference (patient_ref), or authority|type|value.")] = None,
        reason: Annotated[str | None, typer.Option(help="Why. Sealed; shown to whoever reviews.")] = None,
        role: Role = None,
        as_json: Json = False,
    ) -> None:
        """Open one patient to yourself for an hour, for `--purpose ETREAT`. It is audited, signalled and reviewed."""
        if context.invoked_subcommand is not None:
            return
        if not patient or not (reason or "").strip():
            raise UsageError("an emergency has a --patient and a --reason")
        caller = permit("breakglass", EMERGENCY, role)
        _, keys = KeyStore.local()
        ref, grants = find(patient, keys), Grants.local(keys)
        Audit.local().write(caller.act("C", patients=(ref,)))
        made = grants.grant(caller.account, caller.role, ref, reason or "", policy().break_glass_minutes)
        row = {"id": made.id, "patient_ref": ref, "until": _time(made.expires_at)}
        typer.echo(json.dumps(row) if as_json else f"open until {row['until']} for --purpose {EMERGENCY}: {ref}")
        _signal(grants)

    @glass.command()
    def review(
        close: Annotated[str | None, typer.Option(help="The id of a grant that was looked into.")] = None,
        as_json: Json = False,
    ) -> None:
        """Every grant, newest first, with its reason; --close notes that somebody has looked into one."""
        caller = permit("review")
        _, keys = KeyStore.local()
        grants = Grants.local(keys)
        _signal(grants)
        if close is not None:
            Audit.local().write(caller.act("U", entities=(close,)))
            grants.close(close, caller.account)
        found = grants.all()
        refs, ids = tuple(sorted({one.ref for one in found})), tuple(one.id for one in found)
        Audit.local().write(caller.act("R", patients=refs, entities=ids, fields=("reason",)))
        rows: list[dict[str, Any]] = [
            {
                "id": one.id,
                "account": one.account,
                "role": one.role,
                "patient_ref": one.ref,
                "at": _time(one.at),
                "until": _time(one.expires_at),
                "reason": grants.reason(one),
                "closed_at": one.closed_at and _time(one.closed_at),
                "closed_by": one.closed_by,
            }
            for one in found
        ]
        _print(rows, as_json)


def _signal(grants: Grants) -> None:
    try:
        grants.signal()
    except (PublishFailed, StackDown) as error:
        said = f"the signal waits, and goes out with the next review: {error} ({error.reason})"
        Console(stderr=True).print(said, highlight=False)


def _time(at: float) -> str:
    return rfc3339(datetime.fromtimestamp(at, UTC))


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    table = Table(*(rows[0] if rows else ("nothing",)))
    for row in rows:
        table.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
    Console().print(table)
