"""`audit`: list, patient, verify, export. Looking into the audit is itself audited."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers import audit, person
from consumers.access import permit
from infra.audit import Audit
from infra.audit import verify as verify_chain
from infra.errors import UsageError
from infra.keystore import KeyStore

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Since = Annotated[datetime | None, typer.Option("--since", help="Only since then, UTC.")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Who looked at whom, when and why; and whether that can be believed.")
    app.add_typer(commands, name="audit", no_args_is_help=True)

    @commands.command("list")
    def list_entries(
        kind: Annotated[str | None, typer.Option(help="search, reveal, erasure, key, login, ...")] = None,
        who: Annotated[str | None, typer.Option(help="Only what this account did.")] = None,
        since: Since = None,
        as_json: Json = False,
    ) -> None:
        """Every entry, oldest first."""
        Audit.local().write(permit("audit").act("R"))
        _show(audit.entries(kind=kind, who=who, since=since and since.replace(tzinfo=UTC)), as_json)

    @commands.command()
    def patient(
        who: Annotated[str, typer.Argument(metavar="ID", help="Reference, authority|type|value, or number.")],
        since: Since = None,
        as_json: Json = False,
    ) -> None:
        """Who looked at this person, when, why, and at what; under whichever of the person's numbers."""
        caller = permit("audit")
        _, keys = KeyStore.local()
        refs = person.family(who, keys, caller)
        Audit.local().write(caller.act("R", patients=tuple(sorted(refs))))
        _show(audit.entries(patients=refs, since=since and since.replace(tzinfo=UTC)), as_json)

    @commands.command()
    def verify(
        key: Annotated[
            str | None, typer.Option("--key", help="Public key in hex, kept elsewhere; else our own.")
        ] = None,
        log: Annotated[Path | None, typer.Option(help="Another audit.jsonl than this home's.")] = None,
        heads: Annotated[Path | None, typer.Option(help="Another heads.jsonl.")] = None,
        as_json: Json = False,
    ) -> None:
        """Check every entry against the one before it, its signature and its head. Exit code 13: it was altered."""
        ours = Audit.local()
        try:
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)) if key else ours.public_key()
        except ValueError:
            raise UsageError("--key is 32 bytes in hex") from None
        found = verify_chain(log or ours.path, heads or ours.heads, public)
        if as_json:
            row = dataclasses.asdict(found) | {"public_key": public.public_bytes_raw().hex()}
            typer.echo(json.dumps(row))
        else:
            typer.echo(f"{found.entries} entries, anchored up to {found.anchored}, {found.torn} broken off by a crash")
            typer.echo(f"public key {public.public_bytes_raw().hex()}")
            for fault in found.faults:
                typer.echo(f"entry {fault.entry}: {fault.what}")
        raise typer.Exit(13 if found.faults else 0)

    @commands.command()
    def export(to: Annotated[Path, typer.Argument(help="File of FHIR AuditEvents, one a line.")]) -> None:
        """Write every entry as FHIR NDJSON."""
        Audit.local().write(permit("export").act("R", entities=("audit",)))
        typer.echo(f"{audit.export(to)} entries")


def _show(found: Iterable[audit.Entry], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    table = Table("when", "what", "who", "role", "why", "outcome", "fields", "of")
    for one in found:
        of = ", ".join(one.things[:3]) + (f" and {len(one.things) - 3} more" if len(one.things) > 3 else "")
        outcome = f"{one.outcome}: {one.why}" if one.why else one.outcome
        texts = (one.at[:19], one.kind, one.who, one.role, one.purpose, outcome, ", ".join(one.fields), of)
        table.add_row(*(escape(text) for text in texts))
    Console().print(table)
